"""Everything that a training needs to go on as if nothing had happened.

There is no random-number state to keep: every draw is a function of (seed, step) or of (seed, epoch,
sample), so the two counters stand for all generators and for the loader's position.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reptok.training.ema import EMA
from reptok.training.optim import OptimConfig, build_optimizer


class TrainState:
    """Trainable weights, their average, the optimiser, and how far the training has come.

    Attributes:
        weights: Name to trainable parameter (those of `model` that require gradients).
        ema: Their running mean.
        optimizer: AdamW over them.
        step: Updates done, skipped ones included.
        samples: Samples consumed, over all ranks; the loader's position.
        sums: Sums of the metrics since they were last logged, for means over the steps between.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, ema_decay: float):
        """Begin the training of `model` from the weights it has."""
        self.weights = {
            name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
        }
        self.optimizer = build_optimizer(self.weights.items(), optim)
        self.ema = EMA(self.weights, ema_decay)
        self.step = 0
        self.samples = 0
        self.sums: dict[str, float] = {}

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name: `weights/...`, `ema/...` and `optimizer/{moment}/...`; not copies."""
        found = {f"weights/{name}": parameter.detach() for name, parameter in self.weights.items()}
        found |= {f"ema/{name}": tensor for name, tensor in self.ema.weights.items()}
        for name, parameter in self.weights.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                found[f"optimizer/{moment}/{name}"] = value
        return found

    def counters(self) -> dict[str, Any]:
        """Return the JSON-able rest of the state."""
        return {"step": self.step, "samples": self.samples, "sums": self.sums}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Take over a saved state.

        Args:
            tensors: What `tensors` returned.
            counters: What `counters` returned.

        Raises:
            ValueError: A tensor is missing, left over, or of another shape: the state is of another model.
        """
        expected = {
            f"{part}/{name}": weight.shape
            for name, weight in self.weights.items()
            for part in ("weights", "ema")
        }
        given = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith("optimizer/")}
        if given != expected:
            different = sorted(
                name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name)
            )
            raise ValueError(f"the checkpoint is of another model: {', '.join(different[:5])} do not fit")
        for name, parameter in self.weights.items():
            parameter.copy_(tensors[f"weights/{name}"])
            self.ema.weights[name].copy_(tensors[f"ema/{name}"])
            moments = {
                moment: tensors[f"optimizer/{moment}/{name}"].to(parameter.device, copy=True)
                for moment in ("step", "exp_avg", "exp_avg_sq")
                if f"optimizer/{moment}/{name}" in tensors
            }
            if moments:
                self.optimizer.state[parameter] = moments
        self.step, self.samples = int(counters["step"]), int(counters["samples"])
        self.sums = {name: float(value) for name, value in counters["sums"].items()}
