"""Solvers that carry samples along a velocity field, from noise (t = 0) to data (t = 1) or back.

B batch, S steps. ``velocity`` takes x (B, ...) and t (B,) with conditioning and guidance already bound: a
solver does not know what is being sampled. It walks a grid of S + 1 times, spaced as one likes.

    >>> straight = lambda x, t: torch.ones_like(x)
    >>> Euler().solve(straight, torch.zeros(1, 2), time_grid(4))
    tensor([[1., 1.]])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from reptok.flow.path import LINEAR_PATH, Path, broadcast_t

Velocity = Callable[[Tensor, Tensor], Tensor]


def time_grid(num_steps: int | Sequence[float], *, reverse: bool = False) -> list[float]:
    """The float32 times of a walk: ``num_steps`` equal steps from 0 to 1, or the given times; S + 1 of them.

    Args:
        num_steps: A number of steps, or strictly ascending times in [0, 1].
        reverse: From data to noise.

    Raises:
        ValueError: There is no step, or the times do not ascend within [0, 1].
    """
    if isinstance(num_steps, int):
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        # reversed by its ends, not by flipping: the float32 times of both directions are those of a linspace
        ends = (1.0, 0.0) if reverse else (0.0, 1.0)
        times: list[float] = torch.linspace(*ends, num_steps + 1, dtype=torch.float32).tolist()
        return times
    times = torch.tensor(list(num_steps), dtype=torch.float32).tolist()
    inside = len(times) > 1 and times[0] >= 0 and times[-1] <= 1
    if not inside or any(then <= now for now, then in pairwise(times)):
        raise ValueError(f"times must ascend within [0, 1] and be two at least, got {list(num_steps)}")
    return times[::-1] if reverse else times


class Solver(ABC):
    """A way to walk a grid of times.

    Attributes:
        stochastic: Whether it needs fresh noise at every step.
    """

    stochastic: ClassVar[bool] = False

    @abstractmethod
    def walk(
        self, velocity: Velocity, x: Tensor, times: Sequence[float], step_noise: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Yield x (B, ...) at every time after the first."""

    def solve(
        self,
        velocity: Velocity,
        x: Tensor,
        times: Sequence[float],
        *,
        step_noise: Tensor | None = None,
        return_intermediates: bool = False,
    ) -> Tensor:
        """Integrate from the first to the last time.

        Args:
            velocity: The field.
            x: Where to start (B, ...).
            times: S + 1 times, ascending or descending; see :func:`time_grid`.
            step_noise: Standard normal (B, S, ...), for a stochastic solver.
            return_intermediates: Return all points of the walk, (S + 1, B, ...), the start first.

        Returns:
            x (B, ...) at the last time, or the walk.
        """
        points = [x]
        for point in self.walk(velocity, x, times, step_noise):
            points = [*points, point] if return_intermediates else [point]
        return torch.stack(points) if return_intermediates else points[0]


class FixedStep(Solver):
    """A solver that takes the grid's steps one by one."""

    def walk(
        self, velocity: Velocity, x: Tensor, times: Sequence[float], step_noise: Tensor | None = None
    ) -> Iterator[Tensor]:
        for now, then in pairwise(times):
            x = self.step(velocity, x, now, then)
            yield x

    @abstractmethod
    def step(self, velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
        """Carry x (B, ...) from one time to the next."""


@dataclass(frozen=True)
class Euler(FixedStep):
    """Explicit Euler: one evaluation a step, exact on straight fields, error O(1/S)."""

    def step(self, velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
        return x + (then - now) * velocity(x, _at(now, x))


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's second-order method (explicit trapezoid): two evaluations a step, error O(1/S^2)."""

    def step(self, velocity: Velocity, x: Tensor, now: float, then: float) -> Tensor:
        v_now = velocity(x, _at(now, x))
        v_then = velocity(x + (then - now) * v_now, _at(then, x))
        return x + (then - now) / 2 * (v_now + v_then)


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """The stochastic differential equation with the path's own marginals (SiT, section 2.2).

    dx = (v + w/2 score) dt + sqrt(w) dW with w(t) = diffusion * sigma(t). The score is -noise / sigma, so
    that the drift is v - diffusion/2 * noise: no singularity at the data's end. The last step adds no
    noise and follows the velocity alone, straight to the data.

    Attributes:
        diffusion: Strength of the noise, at least 0; 0 is :class:`Euler`.
        path: The path that the velocity belongs to.
    """

    stochastic: ClassVar[bool] = True
    diffusion: float = 1.0
    path: Path = LINEAR_PATH

    def __post_init__(self) -> None:
        if self.diffusion < 0:
            raise ValueError(f"diffusion must be at least 0, got {self.diffusion}")

    def walk(
        self, velocity: Velocity, x: Tensor, times: Sequence[float], step_noise: Tensor | None = None
    ) -> Iterator[Tensor]:
        """As the base class has it; `step_noise` (B, S, ...) must be given and time ascend."""
        steps = len(times) - 1
        if step_noise is None or tuple(step_noise.shape) != (len(x), steps, *x.shape[1:]):
            raise ValueError(f"a stochastic solver needs step_noise of shape (B, {steps}, ...)")
        if times[0] > times[-1]:
            raise ValueError("a stochastic solver walks from noise to data only")
        for number, (now, then) in enumerate(pairwise(times)):
            t = _at(now, x)
            v = velocity(x, t)
            if number == steps - 1:
                yield x + (then - now) * v
                return
            noise = self.path.noise_from_velocity(x, v, t)
            variance = self.diffusion * self.path.schedule(broadcast_t(t, x)).sigma * (then - now)
            x = x + (then - now) * (v - self.diffusion / 2 * noise) + variance.sqrt() * step_noise[:, number]
            yield x


@dataclass(frozen=True)
class Adaptive(Solver):
    """A method of torchdiffeq that chooses its own steps between the grid's times.

    A batch shares its steps, so samples influence each other, by no more than the tolerance.

    Attributes:
        method: "dopri5", "dopri8", "bosh3" or "adaptive_heun".
        tolerance: Relative and absolute.
    """

    method: str = "dopri5"
    tolerance: float = 1e-5

    def walk(
        self, velocity: Velocity, x: Tensor, times: Sequence[float], step_noise: Tensor | None = None
    ) -> Iterator[Tensor]:
        from torchdiffeq import odeint

        grid = torch.tensor(times, device=x.device)
        path: Tensor = odeint(
            lambda t, x: velocity(x, _at(float(t), x)),
            x, grid, rtol=self.tolerance, atol=self.tolerance, method=self.method,
        )  # fmt: skip
        yield from path[1:]


ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
SOLVERS = ("euler", "heun", "sde", *ADAPTIVE)


def solver_named(solver: str | Solver, path: Path = LINEAR_PATH) -> Solver:
    """The solver called by a name of ``SOLVERS``, for velocities of ``path``; a solver is given back.

    Raises:
        ValueError: There is no such solver.
    """
    if isinstance(solver, Solver):
        return solver
    if solver in ADAPTIVE:
        return Adaptive(solver)
    known: dict[str, Solver] = {"euler": Euler(), "heun": Heun(), "sde": EulerMaruyama(path=path)}
    if solver not in known:
        raise ValueError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    return known[solver]


def _at(t: float, x: Tensor) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=torch.float32, device=x.device)
