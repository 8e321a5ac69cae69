"""Everything that a training needs to go on as if nothing had happened.

There is no random-number state to keep: every draw is a function of (seed, step) or of (seed, epoch,
sample), so the two counters stand for all generators and for the loader's position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reptok.training.config import OptimConfig
from reptok.training.ema import EMA
from reptok.training.optim import AdamW, roles_of
from reptok.training.sharding import Rows, local, rows


class TrainState:
    """Trainable weights, their average, the optimiser, and how far the training has come.

    Attributes:
        weights: Name to trainable parameter (those of `model` that require gradients).
        buffers: Name to persistent buffer of what trains, such as the decoder's random frequencies: no
            gradient changes it, but the weights are worth nothing beside another one.
        ema: Their running mean.
        optimizer: AdamW over them.
        step: Updates done, skipped ones included.
        samples: Samples consumed, over all ranks; the loader's position.
        skipped: Steps in a row, up to now, that had no finite gradient.
        sums: Sums of the metrics since they were last logged, for means over the steps between.
        latest: The values last logged, by name.
        history: The loss curve, a hundred points {"step", "train/loss"}, however often is logged, and the
            scores that were taken on the way, {"step", "online/..."}.
        pending: Losses since the last point of `history`.
        recent: What was logged last, (step, values, Unix time) each: a kill may lose what was on its way to
            the tracking server, so a resumed training tells it again.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, ema_decay: float):
        """Begin the training of `model` from the weights it has."""
        self.weights = {
            name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self.buffers = trained_buffers(model)
        self.optimizer = AdamW(self.weights, optim, roles_of(model))
        self.ema = EMA(self.weights, ema_decay)
        self.step = 0
        self.samples = 0
        self.skipped = 0
        self.sums: dict[str, float] = {}
        self.latest: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.pending: list[float] = []
        self.recent: list[tuple[int, dict[str, float], float]] = []

    def tensors(self) -> dict[str, Tensor]:
        """Return this process's part of all tensors by name; not copies.

        The names are `weights/...`, `buffers/...`, `ema/...` and
        `optimizer/{exp_avg, exp_avg_sq, steps}/...`.
        """
        parts = {
            "weights": self.weights,
            "buffers": self.buffers,
            "ema": self.ema.weights,
            "optimizer": self.optimizer.tensors(),
        }
        return {
            f"{part}/{name}": local(tensor).detach()
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def rows(self) -> dict[str, Rows]:
        """Tell which rows those tensors are that hold only some, by name; empty without sharding."""
        divided = {name: found for name, weight in self.weights.items() if (found := rows(weight))}
        parts = ("weights", "ema", "optimizer/exp_avg", "optimizer/exp_avg_sq")
        return {f"{part}/{name}": found for part in parts for name, found in divided.items()}

    def counters(self) -> dict[str, Any]:
        """Return the JSON-able rest of the state."""
        names = ("step", "samples", "skipped", "sums", "latest", "history", "pending", "recent")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take over a saved state.

        Args:
            tensors: What `tensors` returned, of the rows that are this process's.
            counters: What `counters` returned.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape: the state is of another model.
        """
        own = self.tensors()
        shapes = {name: tensor.shape for name, tensor in own.items()}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if given != shapes:
            differing = sorted(n for n in given.keys() | shapes.keys() if given.get(n) != shapes.get(n))
            raise ValueError(f"the checkpoint is of another model: {', '.join(differing[:5])} do not fit")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.step, self.samples = int(counters["step"]), int(counters["samples"])
        self.skipped = int(counters["skipped"])
        self.sums, self.latest = dict(counters["sums"]), dict(counters["latest"])
        self.history, self.pending = list(counters["history"]), list(counters["pending"])
        self.recent = [(int(step), dict(values), float(at)) for step, values, at in counters["recent"]]


def trained_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the persistent buffers of what trains, by name.

    A buffer counts as the nearest module around it that has parameters: those of frozen networks come with
    their weights, from wherever the configuration says.
    """
    modules = dict(model.named_modules())
    persistent = model.state_dict(keep_vars=True).keys()
    found = {}
    for name, buffer in model.named_buffers():
        owner = name
        while owner:
            owner = owner.rpartition(".")[0]
            if parameters := list(modules[owner].parameters()):
                if name in persistent and any(parameter.requires_grad for parameter in parameters):
                    found[name] = buffer
                break
    return found
