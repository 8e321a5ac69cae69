"""What a training is told, and what it makes of that in a process.

A `Training` is its whole description: which network, on which data, how long. It is small, holds no tensor,
and travels to every process, as a pickle of Ray's or as JSON, where it becomes a `Task` on that process's
device.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reptok.data.stream import Readable
from reptok.training.config import TrainConfig
from reptok.training.preview import Preview
from reptok.training.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training's parts in one process.

    Attributes:
        objective: On the device, with the same weights in every process. Called with (batch, random), it
            gives the losses; its trainable parameters are what is trained.
        data: The training split.
        validation: The validation split, if there is one.
        save: Writes the finished model into a folder; called with the objective with averaged weights.
        weights: What of that is trained, by the names in the model's file of weights; called likewise.
        preview: What is to be drawn of the validation split at a step, the same in every process.
        scores: What is to be made of so many samples of the validation split, and judged, likewise.
        prepare: Makes of a batch what the objective is called with, on a device, while the step before it
            computes there; None calls it with the batch as it was read.
        columns: What a step's loss looks at of a sample, so that nothing else is read; None for everything.
        notes: Lines for the user, told once.
        flops_per_image: What a step costs, forward and backward, for the utilisation of the device.
    """

    objective: nn.Module
    data: Readable[Any]
    save: Callable[[Any, Path], None]
    weights: Callable[[Any], Mapping[str, Tensor]] = lambda objective: objective.state_dict()
    validation: Readable[Any] | None = None
    preview: Callable[[int], Preview | None] = lambda step: None
    scores: Callable[[int], Scores] | None = None
    prepare: Callable[[Any, torch.device], Any] | None = None
    columns: Callable[[int], frozenset[str]] | None = None
    notes: Sequence[str] = ()
    flops_per_image: Callable[[int], float] | None = None


@dataclass(frozen=True, kw_only=True)
class Training(ABC):
    """The description of a training; the dataclasses below it add networks and folders.

    Attributes:
        train: How long and how.
        init: A published model to start from, a folder or a model of the hub that was fetched; "" for none.
    """

    train: TrainConfig
    init: str = ""

    @abstractmethod
    def build(self, device: torch.device) -> Task:
        """Load data and networks; torch's generator has been seeded."""
