"""Flow matching: the path, its times, losses, guidance and solvers; no network is known here."""

from reptok.flow.noise import noise_from_seeds
from reptok.flow.path import LinearPath, PathSample, TrigonometricPath
from reptok.flow.solver import euler, heun, solve

__all__ = [
    "LinearPath",
    "PathSample",
    "TrigonometricPath",
    "euler",
    "heun",
    "noise_from_seeds",
    "solve",
]
