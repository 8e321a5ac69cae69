"""Scores of a training on its way, so that quality over steps is a curve and not the loss alone.

They are taken by the averaged weights on few samples, whose number is in the name: a curve to compare steps
and runs by, no score to print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reptok.training.parallel import Alone

ONLINE, OF = "online/", "_ema_n"
"""Of the names of these scores: on the way, by averaged weights, on so many samples."""


def online_name(metric: str, samples: int) -> str:
    """The name of a score on the way: `online/psnr_ema_n512`."""
    return f"{ONLINE}{metric}{OF}{samples}"


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is made of samples of the validation split, and judged.

    Attributes:
        samples: Their numbers, int64 (N,), at least one.
        look: Judges some of them with an objective in evaluation mode: float (n, D) on any device. What a
            sample gets depends on neither the others nor the process.
        total: Makes scores by name of the values (N, D) of all.
    """

    samples: np.ndarray
    look: Callable[[Any, np.ndarray], Tensor]
    total: Callable[[Tensor], Mapping[str, float]]


def spread(total: int, wanted: int) -> np.ndarray:
    """At most so many numbers below `total`, evenly spread, int64."""
    return np.unique(np.linspace(0, total - 1, min(wanted, total)).round().astype(np.int64))


def spread_runs(total: int, wanted: int, run: int) -> np.ndarray:
    """At most so many numbers below `total`, int64: all, or runs of neighbours that are evenly spread.

    Where samples lie beside their neighbours in files that are fetched in parts, a run costs what one of its
    samples does.
    """
    if total <= wanted:
        return np.arange(total)
    run = min(run, wanted)
    begins = np.linspace(0, total - run, wanted // run).round().astype(np.int64)
    return (begins[:, None] + np.arange(run)).ravel()


@torch.no_grad()
def score_together(scores: Scores, objective: Any, parallel: Alone, batch_size: int) -> Mapping[str, float]:
    """Let every process judge a share of the samples; all call it, within `parallel.evaluating`.

    Args:
        scores: The same in every process.
        objective: What `parallel.evaluating` gave.
        parallel: The processes.
        batch_size: Samples of a process at a time.
    """

    def judge(mine: np.ndarray) -> Tensor:
        parts = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]
        return torch.cat([scores.look(objective, scores.samples[part]) for part in parts]).float()

    return scores.total(parallel.shared(len(scores.samples), judge).cpu())
