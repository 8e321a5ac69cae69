"""Where along the flow the error lies: a validation loss at fixed times, and its picture."""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

from pipelines.reports.pictures import curves
from reptok.flow.time import segment_midpoints


def loss_by_time(losses: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """Sums over a batch of a loss at the midpoint of each of eight segments of [0, 1].

    Args:
        losses: times (B,) to per-sample losses (B,), with the same noise for all times.
        like: (B, ...), of whose batch size, type and device the times are.

    Returns:
        (8,) float64 on the CPU; the first is next to noise.
    """
    times = segment_midpoints()
    return torch.stack([losses(like.new_full((len(like),), float(t))).double().sum().cpu() for t in times])


def loss_picture(losses: Tensor, data: str) -> Image.Image:
    """Mean velocity losses (8,) over flow time; `data` says what stands at its end."""
    values = {"loss": (segment_midpoints(len(losses)).tolist(), losses.tolist())}
    return curves(values, f"flow time (0 noise, 1 {data})", "velocity loss")
