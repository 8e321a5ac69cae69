"""Probability paths between noise and data (paper, section 3.1).

One direction in the whole project: t = 0 is noise, t = 1 is data. A path mixes both, x_t = alpha(t) x_1 +
sigma(t) x_0, and its velocity is the time derivative. A network that knows the velocity therefore knows the
noise, the data and the score as well: the conversions below.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PathSample:
    """A point of the path and the velocity there; both have the shape of the data."""

    x_t: Tensor
    v_t: Tensor


@dataclass(frozen=True)
class Weights:
    """Weights of data (alpha) and noise (sigma) at some times, and their derivatives; all of one shape."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


class Schedule(ABC):
    """How the weights go from noise (alpha 0, sigma 1 at t = 0) to data (alpha 1, sigma 0 at t = 1)."""

    @abstractmethod
    def __call__(self, t: Tensor) -> Weights:
        """Weights and their derivatives at times in [0, 1], in the shape of ``t``."""


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """Straight lines at constant speed: alpha = t, sigma = 1 - t. The paper's."""

    def __call__(self, t: Tensor) -> Weights:
        one = torch.ones_like(t)
        return Weights(alpha=t, sigma=1 - t, d_alpha=one, d_sigma=-one)


@dataclass(frozen=True)
class TrigonometricSchedule(Schedule):
    """Quarter circles, which keep the variance: alpha = sin(pi t / 2), sigma = cos(pi t / 2) ("GVP")."""

    def __call__(self, t: Tensor) -> Weights:
        quarter = math.pi / 2
        alpha, sigma = torch.sin(quarter * t), torch.cos(quarter * t)
        return Weights(alpha=alpha, sigma=sigma, d_alpha=quarter * sigma, d_sigma=-quarter * alpha)


def broadcast_t(t: Tensor, like: Tensor) -> Tensor:
    """Append singleton axes to times (B,) until they broadcast over ``like`` (B, ...)."""
    if t.ndim != 1 or t.shape[0] != like.shape[0]:
        raise ValueError(f"t must have one time per sample, ({like.shape[0]},), but has {tuple(t.shape)}")
    return t.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


@dataclass(frozen=True)
class Path:
    """x_t = alpha(t) x_1 + sigma(t) x_0, from noise x_0 (t = 0) to data x_1 (t = 1), by any schedule."""

    schedule: Schedule

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return the point at ``t`` and the velocity there.

        Args:
            x_0: Noise (B, ...).
            x_1: Data of the same shape.
            t: Times (B,) in [0, 1].

        Raises:
            ValueError: The shapes differ.
        """
        if x_0.shape != x_1.shape:
            raise ValueError(f"noise {tuple(x_0.shape)} and data {tuple(x_1.shape)} differ in shape")
        s = self.schedule(broadcast_t(t, x_1))
        return PathSample(x_t=s.alpha * x_1 + s.sigma * x_0, v_t=s.d_alpha * x_1 + s.d_sigma * x_0)

    def data_from_velocity(self, x_t: Tensor, v_t: Tensor, t: Tensor) -> Tensor:
        """The end point x_1 (B, ...) that a velocity points at."""
        s = self.schedule(broadcast_t(t, x_t))
        return (s.sigma * v_t - s.d_sigma * x_t) / (s.d_alpha * s.sigma - s.alpha * s.d_sigma)

    def noise_from_velocity(self, x_t: Tensor, v_t: Tensor, t: Tensor) -> Tensor:
        """The starting point x_0 (B, ...) that a velocity comes from."""
        s = self.schedule(broadcast_t(t, x_t))
        return (s.d_alpha * x_t - s.alpha * v_t) / (s.d_alpha * s.sigma - s.alpha * s.d_sigma)

    def score_from_velocity(self, x_t: Tensor, v_t: Tensor, t: Tensor) -> Tensor:
        """The gradient of the log density (B, ...), which is -noise / sigma; it has no value at t = 1."""
        return -self.noise_from_velocity(x_t, v_t, t) / self.schedule(broadcast_t(t, x_t)).sigma

    def velocity_from_score(self, x_t: Tensor, score: Tensor, t: Tensor) -> Tensor:
        """Inverse of :meth:`score_from_velocity`; it has no value at t = 0."""
        s = self.schedule(broadcast_t(t, x_t))
        noise = -s.sigma * score
        return s.d_alpha * (x_t - s.sigma * noise) / s.alpha + s.d_sigma * noise


LINEAR_PATH = Path(LinearSchedule())
"""The paper's, and the default."""

PATHS = {"linear": LINEAR_PATH, "trigonometric": Path(TrigonometricSchedule())}
