"""The straight probability path between noise and data (paper, section 3.1).

One direction in the whole project: t = 0 is noise, t = 1 is data.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PathSample:
    """A point of the path and the velocity there; both have the shape of the data."""

    x_t: Tensor
    v_t: Tensor


def broadcast_t(t: Tensor, like: Tensor) -> Tensor:
    """Append singleton axes to times (B,) until they broadcast over ``like`` (B, ...)."""
    if t.ndim != 1 or t.shape[0] != like.shape[0]:
        raise ValueError(f"t must have one time per sample, ({like.shape[0]},), but has {tuple(t.shape)}")
    return t.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)


class LinearPath:
    """Straight path from noise x_0 (t = 0) to data x_1 (t = 1): x_t = (1 - t) x_0 + t x_1."""

    def sample(self, x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
        """Return the point at ``t`` and its constant velocity x_1 - x_0.

        Args:
            x_0: Noise (B, ...).
            x_1: Data of the same shape.
            t: Times (B,) in [0, 1].
        """
        if x_0.shape != x_1.shape:
            raise ValueError(f"noise {tuple(x_0.shape)} and data {tuple(x_1.shape)} differ in shape")
        s = broadcast_t(t, x_1)
        return PathSample(x_t=(1 - s) * x_0 + s * x_1, v_t=x_1 - x_0)

    def data_from_velocity(self, x_t: Tensor, v_t: Tensor, t: Tensor) -> Tensor:
        """The end point that a velocity points at: x_1 = x_t + (1 - t) v_t."""
        return x_t + (1 - broadcast_t(t, x_t)) * v_t

    def noise_from_velocity(self, x_t: Tensor, v_t: Tensor, t: Tensor) -> Tensor:
        """The starting point that a velocity comes from: x_0 = x_t - t v_t."""
        return x_t - broadcast_t(t, x_t) * v_t
