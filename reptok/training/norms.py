"""How large every layer's gradient, weights and output are, and how sharp its attention.

Seen at intervals, on the device, beside a step that is done anyway: their numbers come to the host with the
step's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from reptok.decoder.blocks import CosineAttention
from reptok.training.blocks import trained_blocks
from reptok.training.parallel import Alone
from reptok.training.sharding import local

PREFIX = "norms/"
"""Metrics are "norms/{gradient, weight, activation, attention_scale}/{layer}"."""


class LayerNorms:
    """The norms of what trains, by layer: a block of a stack, or a module outside of one.

    "gradient" and "weight" are L2 norms over a layer's parameters, the gradient's before clipping.
    "activation" is the root mean square of a block's output, over this process's share of the batch.
    "attention_scale" is the mean over a block's heads of the learned factor on their cosines.
    """

    def __init__(self, objective: nn.Module, every: int):
        """Look at `objective` every so many steps; never with 0.

        Args:
            objective: Before it is divided among processes; its parameters' names say the layers.
            every: Steps between two looks.
        """
        self.every = every
        names = {module: name for name, module in objective.named_modules()}
        self._blocks = {names[block]: block for block in trained_blocks(objective)}
        self._attentions = {
            layer_of(f"{name}.scale"): module
            for module, name in names.items()
            if isinstance(module, CosineAttention) and module.scale.requires_grad
        }
        self._activations: dict[str, Tensor] = {}

    def due(self, step: int) -> bool:
        """Whether update number `step` (0 for the first) is looked at."""
        return self.every > 0 and (step + 1) % self.every == 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Surround the forward passes of a step that is looked at; of several parts the last one counts."""

        def hook(name: str) -> Callable[..., None]:
            def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                self._activations[name] = output.detach().float().square().mean()

            return note

        handles = [block.register_forward_hook(hook(name)) for name, block in self._blocks.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @torch.no_grad()
    def measure(self, weights: Mapping[str, nn.Parameter], parallel: Alone) -> dict[str, Tensor]:
        """Return the metrics, scalars on the device; between the backward pass and the update.

        Args:
            weights: What trains, by name, with its gradients.
            parallel: How it is divided among processes.
        """
        layers = [layer_of(name) for name in weights]
        values = [local(weight).detach() for weight in weights.values()]
        gradients = [
            torch.zeros_like(value) if weight.grad is None else local(weight.grad)
            for weight, value in zip(weights.values(), values, strict=True)
        ]
        squares = {
            f"{kind}/{layer}": square
            for kind, tensors in (("gradient", gradients), ("weight", values))
            for layer, square in _squares(layers, tensors).items()
        }
        means = {f"attention_scale/{name}": local(module.scale.detach()).sum() / module.heads
                 for name, module in self._attentions.items()}  # fmt: skip
        divided = parallel.of_one_copy(torch.stack([*squares.values(), *means.values()]))
        norms, scales = divided[: len(squares)].sqrt(), divided[len(squares) :]
        found = dict(zip([*squares, *means], [*norms.unbind(), *scales.unbind()], strict=True))
        if self._activations:
            mean = parallel.total(torch.stack([*self._activations.values()])) / parallel.world_size
            names = [f"activation/{layer}" for layer in self._activations]
            found |= dict(zip(names, mean.sqrt().unbind(), strict=True))
            self._activations.clear()
        return {f"{PREFIX}{name}": value for name, value in found.items()}


def layer_of(name: str) -> str:
    """Return the layer of a parameter: up to the first number in its name, or its module."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            return ".".join(parts[: place + 1])
    return ".".join(parts[:-1]) or name


def _squares(layers: list[str], tensors: list[Tensor]) -> dict[str, Tensor]:
    """Sum the squares of tensors by layer."""
    found: dict[str, Tensor] = {}
    for layer, norm in zip(layers, torch._foreach_norm(tensors), strict=True):
        square = norm.float().square()
        found[layer] = found[layer] + square if layer in found else square
    return found
