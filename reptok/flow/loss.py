"""The flow-matching regression loss, one number per sample."""

from __future__ import annotations

from torch import Tensor


def velocity_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of a velocity over all axes but the first, in float32: (B, ...) -> (B,)."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)
