"""Exponential moving average of the trained weights: the weights that are sampled from and published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from reptok.training.sharding import local


class EMA:
    """A running mean of weights, updated after every optimiser step.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that the first weights are forgotten soon.

    Attributes:
        weights: Name to averaged weight; this process's rows of a sharded one.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float):
        """Start as a copy.

        Args:
            parameters: Name to live weight; the same tensors must be updated in place by the training.
            decay: In [0, 1); 0 follows the weights.

        Raises:
            ValueError: The decay is out of its range.
        """
        if not 0 <= decay < 1:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self._live = dict(parameters)
        self.weights = {name: local(tensor).detach().clone() for name, tensor in parameters.items()}

    def decay_at(self, step: int) -> float:
        """Return the decay used after update number `step` (0 for the first)."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the live weights: ema = d * ema + (1 - d) * live, with d = decay_at(step)."""
        live = [local(tensor).detach() for tensor in self._live.values()]
        torch._foreach_lerp_(list(self.weights.values()), live, 1 - self.decay_at(step))

    @torch.no_grad()
    def update_on_device(self, share: Tensor) -> None:
        """Move towards the live weights by a share that the device holds, 1 - d; 0 changes nothing."""
        for averaged, live in zip(self.weights.values(), self._live.values(), strict=True):
            averaged.lerp_(local(live).detach(), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Exchange the live weights for the averaged ones within the block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self._live.items():
            live, averaged = local(tensor), self.weights[name].clone()
            self.weights[name].copy_(live)
            live.copy_(averaged)
