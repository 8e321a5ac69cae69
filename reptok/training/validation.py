"""Validation loss by segment of time: one number would hide that noise and data ends learn differently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reptok.data.stream import Readable
from reptok.flow.time import segment_midpoints
from reptok.training.config import Precision
from reptok.training.ema import EMA
from reptok.training.objectives import SEGMENTS
from reptok.training.parallel import Alone
from reptok.training.step import StepRandom, products_in

SEED = 1 << 20
"""Of the noise, the same in every validation."""


@torch.no_grad()
def validate(
    parallel: Alone,
    ema: EMA,
    data: Readable[Any],
    *,
    samples: int,
    batch_size: int,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
    segments: int = SEGMENTS,
) -> Mapping[str, float]:
    """Evaluate the averaged weights at the midpoints of equal segments of [0, 1].

    All processes share the work, and how many they are changes no sample's noise.

    Args:
        parallel: The objective, in one process or several. Called with (batch, random, t), t (S, B), it gives
            the means "velocity" (S,) over a batch, and perhaps "preservation".
        ema: The averaged weights.
        data: The validation split, of which the first samples are taken, none mirrored.
        samples: How many, at most.
        batch_size: Of them at a time, over all processes.
        precision: Of matrix products.
        device: Where this process computes.
        segments: Number of segments.

    Returns:
        "val/loss_segment_0" (next to noise) ... and their mean "val/loss"; "val/preservation" where the
        objective has one.
    """
    numbers, world = np.arange(min(sum(data.rows), samples)), parallel.world_size
    midpoints = segment_midpoints(segments).to(device)
    names = [f"val/loss_segment_{segment}" for segment in range(segments)]
    sums: Tensor | None = None
    with parallel.evaluating(ema) as objective, products_in(precision, device):
        for number, start in enumerate(range(0, len(numbers), batch_size)):
            part = numbers[start : start + batch_size]
            first, end = (len(part) * (parallel.rank + more) // world for more in (0, 1))
            weight = end - first
            mine = slice(first, end) if weight else slice(0, 1)  # all go along, as sharded weights want it
            batch = data.read(part[mine], np.zeros(mine.stop - mine.start, bool))
            draws = StepRandom(SEED, number, len(part), mine, device)
            losses = objective(batch, draws, midpoints[:, None].expand(-1, draws.size))
            found = [*losses["velocity"].unbind(), *(losses[n] for n in ("preservation",) if n in losses)]
            weighted = weight * torch.stack(found).double()
            sums = weighted if sums is None else sums + weighted
    assert sums is not None
    names += ["val/preservation"] * (len(sums) - segments)
    means = (parallel.total(sums) / len(numbers)).tolist()
    return {**dict(zip(names, means, strict=True)), "val/loss": sum(means[:segments]) / segments}
