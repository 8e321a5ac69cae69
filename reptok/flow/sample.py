"""From starting noise to samples: a solver on its grid of times, with each sample's own noise on the way."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from reptok.flow.noise import expand_seed, noise_from_seeds
from reptok.flow.path import LINEAR_PATH, Path
from reptok.flow.solver import Solver, Velocity, solver_named, time_grid

STEP_STREAM = 8  # the noise on the way is independent of the starting noise of the same seed


def sample(
    velocity: Velocity,
    noise: Tensor,
    *,
    num_steps: int | Sequence[float],
    solver: str | Solver,
    seeds: int | Sequence[int],
    stream: int,
    path: Path = LINEAR_PATH,
    return_intermediates: bool = False,
) -> Tensor:
    """Carry noise (B, ...) to data (B, ...) along a velocity field.

    Args:
        velocity: The field; takes x (B, ...) and t (B,).
        noise: Where to start, at t = 0.
        num_steps: Equal steps, or the times themselves, ascending in [0, 1].
        solver: A name of ``reptok.flow.solver.SOLVERS``, or a solver.
        seeds: One per sample, or s for s, s + 1, ...: what a stochastic solver adds to a sample
            depends on its seed alone, not on its batch.
        stream: Of the starting noise; see :func:`reptok.flow.noise.noise_from_seeds`.
        path: The path that the velocity belongs to.
        return_intermediates: Return all points of the walk, (S + 1, B, ...), the noise first.

    Raises:
        ValueError: There is no such solver, or the times do not ascend.
    """
    chosen, times = solver_named(solver, path), time_grid(num_steps)
    step_noise = None
    if chosen.stochastic:
        shape = (len(times) - 1, *noise.shape[1:])
        step_noise = noise_from_seeds(expand_seed(seeds, len(noise)), shape, stream=STEP_STREAM + stream)
        step_noise = step_noise.to(noise)
    return chosen.solve(
        velocity, noise, times, step_noise=step_noise, return_intermediates=return_intermediates
    )
