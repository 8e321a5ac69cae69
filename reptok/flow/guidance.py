"""Classifier-free guidance, everywhere or in an interval of times (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Extrapolate from the unconditional through the conditional velocity: u + scale (c - u)."""
    return unconditional + scale * (conditional - unconditional)


def is_guided(t: float | Tensor, interval: tuple[float, float] | None) -> bool:
    """Whether guidance acts at time ``t``; ``None`` means always.

    Both ends belong to the interval and the comparison happens in float32, as the solver's times are float32
    numbers: with 50 steps, index 15 is 0.29999998 and lies outside [0.3, 0.9].
    """
    if interval is None:
        return True
    low, high, now = torch.tensor([*interval, float(t)], dtype=torch.float32)
    return bool((low <= now) & (now <= high))
