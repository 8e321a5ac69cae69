"""Solvers of dx/dt = velocity(x, t) from noise (t = 0) to data (t = 1), or back.

``velocity`` takes x (B, ...) and t (B,) with conditioning and guidance already bound: a solver does not
know what is being sampled.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
SOLVERS = ("euler", "heun", *ADAPTIVE)


def time_grid(num_steps: int, *, reverse: bool = False) -> list[float]:
    """The num_steps + 1 float32 times of equal steps from 0 to 1 (1 to 0 when reversed)."""
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    ends = (1.0, 0.0) if reverse else (0.0, 1.0)
    times: list[float] = torch.linspace(*ends, num_steps + 1, dtype=torch.float32).tolist()
    return times


def _at(t: float, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)


def euler(velocity: Velocity, noise: Tensor, num_steps: int, *, reverse: bool = False) -> Tensor:
    """Explicit Euler with ``num_steps`` equal steps: one evaluation each, exact on straight fields."""
    times, x = time_grid(num_steps, reverse=reverse), noise
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, _at(now, x))
    return x


def heun(velocity: Velocity, noise: Tensor, num_steps: int, *, reverse: bool = False) -> Tensor:
    """Heun's second-order method (explicit trapezoid): two evaluations a step, error O(1/num_steps^2)."""
    times, x = time_grid(num_steps, reverse=reverse), noise
    for now, then in pairwise(times):
        v_now = velocity(x, _at(now, x))
        v_then = velocity(x + (then - now) * v_now, _at(then, x))
        x = x + (then - now) / 2 * (v_now + v_then)
    return x


def adaptive(
    method: str, velocity: Velocity, noise: Tensor, *, reverse: bool = False, tolerance: float = 1e-5
) -> Tensor:
    """A method of torchdiffeq that chooses its own steps, to a relative and absolute ``tolerance``.

    A batch shares its steps, so samples influence each other, by no more than the tolerance.
    """
    from torchdiffeq import odeint

    ends = torch.tensor([1.0, 0.0] if reverse else [0.0, 1.0], device=noise.device)
    field = lambda t, x: velocity(x, _at(float(t), x))  # noqa: E731
    path: Tensor = odeint(field, noise, ends, rtol=tolerance, atol=tolerance, method=method)
    return path[-1]


def solve(name: str, velocity: Velocity, noise: Tensor, num_steps: int, *, reverse: bool = False) -> Tensor:
    """Integrate with the solver called ``name``, one of ``SOLVERS``; adaptive ones choose their own steps.

    Raises:
        ValueError: There is no such solver.
    """
    if name == "euler":
        return euler(velocity, noise, num_steps, reverse=reverse)
    if name == "heun":
        return heun(velocity, noise, num_steps, reverse=reverse)
    if name in ADAPTIVE:
        return adaptive(name, velocity, noise, reverse=reverse)
    raise ValueError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
