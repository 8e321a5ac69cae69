"""Validation loss by segment of time: one number would hide that noise and data ends learn differently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from reptok.flow.time import segment_midpoints
from reptok.training.objectives import SEGMENTS, Losses
from reptok.training.step import StepRandom


@torch.no_grad()
def segment_losses(
    objective: Callable[..., Losses],
    batches: Iterable[tuple[Any, int]],
    random: Callable[[int, int], StepRandom],
    segments: int = SEGMENTS,
) -> Mapping[str, float]:
    """Evaluate an objective at the midpoints of equal segments of [0, 1].

    Args:
        objective: Called with (batch, random, t).
        batches: Batches with their number of samples; weighted by it.
        random: The random numbers for a batch number and its size; every segment gets the same.
        segments: Number of segments.

    Returns:
        "val/loss_segment_0" (next to noise) ... and their mean "val/loss"; "val/preservation" where the
        objective has one. Empty when there is no batch.
    """
    sums: dict[str, float] = {}
    total = 0
    for number, (batch, size) in enumerate(batches):
        total += size
        for segment, midpoint in enumerate(segment_midpoints(segments).tolist()):
            draws = random(number, size)
            losses = objective(batch, draws, torch.full((size,), midpoint, device=draws.device))
            name = f"val/loss_segment_{segment}"
            sums[name] = sums.get(name, 0.0) + size * float(losses.get("velocity", losses["loss"]))
        if "preservation" in losses:
            sums["val/preservation"] = sums.get("val/preservation", 0.0) + size * float(
                losses["preservation"]
            )
    values = {name: value / total for name, value in sums.items()}
    if values:
        values["val/loss"] = sum(values[f"val/loss_segment_{k}"] for k in range(segments)) / segments
    return values
