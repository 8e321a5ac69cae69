"""What a generator is conditioned on, and the embeddings of time and class.

B batch, L text tokens, C text width, E extra tokens, D token width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Condition:
    """A batch of conditions; what a generator does not use stays None.

    Attributes:
        labels: Classes (B,), integers.
        text: States of a frozen language model (B, L, C).
        mask: (B, L) bool, True where ``text`` holds a token; None means everywhere.
        extra: Tokens (B, E, D) given by the caller, put before the noisy ones.
        dropped: (B,) bool, True where the sample is to be unconditional.
    """

    labels: Tensor | None = None
    text: Tensor | None = None
    mask: Tensor | None = None
    extra: Tensor | None = None
    dropped: Tensor | None = None

    def __len__(self) -> int:
        """Number of samples.

        Raises:
            ValueError: The condition is empty, so that it has no batch size.
        """
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None:
                return len(value)
        raise ValueError("an empty condition has no batch size; give num_samples or noise")

    @classmethod
    def of(cls, value: Condition | Tensor | None) -> Condition:
        """A condition as it is, labels (B,) as one, or none at all."""
        if isinstance(value, Tensor):
            if value.ndim != 1 or value.is_floating_point():
                raise ValueError(
                    f"a tensor given as a condition must hold labels, integers (B,), but is {value.dtype} "
                    f"{tuple(value.shape)}; for text or extra tokens give a Condition"
                )
            return cls(labels=value)
        return cls() if value is None else value

    @classmethod
    def null(cls, like: Condition) -> Condition:
        """The unconditional counterpart of ``like``: same shapes, everything dropped."""
        first = next((v for f in fields(like) if (v := getattr(like, f.name)) is not None), None)
        if first is None:
            return like
        return replace(like, dropped=torch.ones(len(first), dtype=torch.bool, device=first.device))

    def drop(self, dropped: Tensor) -> Condition:
        """Make the samples where ``dropped`` (B,) is True unconditional, beside those that already are."""
        return replace(self, dropped=dropped if self.dropped is None else dropped | self.dropped)

    def to(self, device: torch.device | str) -> Condition:
        """Move all tensors; from pinned memory without waiting."""
        return Condition(*(None if v is None else v.to(device, non_blocking=True) for v in self._values()))

    def index(self, rows: Tensor | slice) -> Condition:
        """The conditions at ``rows`` of the batch."""
        return Condition(*(None if v is None else v[rows] for v in self._values()))

    def repeat(self, times: int) -> Condition:
        """Each condition ``times`` times in a row: a, a, b, b, ..."""
        return Condition(*(None if v is None else v.repeat_interleave(times, 0) for v in self._values()))

    @classmethod
    def concat(cls, first: Condition, second: Condition) -> Condition:
        """One batch after the other; missing ``dropped`` marks count as False."""

        def join(a: Condition, b: Condition, name: str) -> Tensor | None:
            x, y = getattr(a, name), getattr(b, name)
            if name == "dropped" and (x is None) != (y is None):
                x = torch.zeros_like(y) if x is None else x
                y = torch.zeros_like(x) if y is None else y
            return None if x is None else torch.cat([x, y])

        return cls(*(join(first, second, f.name) for f in fields(cls)))

    def tensors(self) -> list[Tensor]:
        """What it consists of."""
        return [value for value in self._values() if value is not None]

    def _values(self) -> list[Tensor | None]:
        return [getattr(self, f.name) for f in fields(self)]


class TimeEmbedding(nn.Module):
    """Sinusoid of 256 of the time in [0, 1] (not scaled by 1000), then a two-layer perceptron."""

    frequencies: Tensor

    def __init__(self, width: int, features: int = 256) -> None:
        super().__init__()
        half = features // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def features(self, t: Tensor) -> Tensor:
        """[cos(t f), sin(t f)] (B, features) of times (B,)."""
        angles = t.float()[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,) to (B, width)."""
        return self.mlp(self.features(t).to(next(self.mlp.parameters()).dtype))


class ClassEmbedding(nn.Module):
    """One row per class and a last one, ``null_label``, for no class."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.null_label = num_classes
        self.table = nn.Embedding(num_classes + 1, width)

    def forward(self, condition: Condition, batch: int) -> Tensor:
        """(B, width); without labels every sample is unconditional.

        Raises:
            ValueError: A label is outside 0 ... num_classes (the last is ``null_label``).
        """
        labels = condition.labels
        if labels is None:
            labels = torch.full((batch,), self.null_label, device=self.table.weight.device)
        elif labels.device.type == "cpu" and len(labels):
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high > self.null_label:
                raise ValueError(f"labels must lie in 0 ... {self.null_label - 1}, got {low} ... {high}")
        if condition.dropped is not None:
            labels = labels.masked_fill(condition.dropped, self.null_label)
        return self.table(labels)
