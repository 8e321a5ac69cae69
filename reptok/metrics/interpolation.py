"""Does a path of images change gradually from one end to the other, or jump?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Gradualness:
    """How evenly paths move.

    Attributes:
        largest_step: (P,) the longest step's share of the way: 1 / (frames - 1) when even, 1 for a jump.
        monotone: (P,) share of the steps that lead away from the start and towards the end.
    """

    largest_step: Tensor
    monotone: Tensor


def gradualness(frames: Tensor) -> Gradualness:
    """Measure paths by the Euclidean distances between their frames.

    Args:
        frames: (P, F, ...) P paths of F frames, as pixels or features.

    Raises:
        ValueError: with fewer than three frames, which cannot be uneven.
    """
    if frames.ndim < 3 or frames.shape[1] < 3:
        raise ValueError(f"expected paths (P, F, ...) of at least 3 frames, got {tuple(frames.shape)}")
    points = frames.flatten(2).double()
    steps = (points[:, 1:] - points[:, :-1]).norm(dim=2)
    from_start = (points - points[:, :1]).norm(dim=2).diff(dim=1)
    to_end = (points - points[:, -1:]).norm(dim=2).diff(dim=1)
    onward = (from_start >= 0) & (to_end <= 0)
    whole = steps.sum(1).clamp(min=1e-12)
    return Gradualness(largest_step=steps.amax(1) / whole, monotone=onward.double().mean(1))
