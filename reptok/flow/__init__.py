"""Flow matching: schedules, paths, times, losses, guidance and solvers; no network is known here."""

from reptok.flow.noise import noise_from_seeds
from reptok.flow.path import LinearSchedule, Path, PathSample, TrigonometricSchedule
from reptok.flow.solver import Euler, EulerMaruyama, Heun, Solver, time_grid

__all__ = [
    "Euler",
    "EulerMaruyama",
    "Heun",
    "LinearSchedule",
    "Path",
    "PathSample",
    "Solver",
    "TrigonometricSchedule",
    "noise_from_seeds",
    "time_grid",
]
