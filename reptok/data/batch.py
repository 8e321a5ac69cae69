"""What one training step reads: the samples of a batch, in the types that they are stored in.

A GPU widens and scales them faster than they reach it, and the loader's threads copy bytes alone: arithmetic
of torch in each of them would start a team of threads of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reptok.generator.conditioning import Condition


@dataclass(frozen=True)
class TokenizerBatch:
    """What a tokenizer step needs; `images`, `moments` and `frozen_token` agree on who is mirrored.

    Attributes:
        images: uint8 (B, H, W, 3); None where the decoder learns alone.
        moments: float16 or float32 (B, 8, h, w), the VAE posterior's mean and log-variance, unscaled.
        frozen_token: float32 (B, N, D), the frozen encoder's token.
        samples: int64 (B,), sample numbers in the split.
    """

    images: Tensor | None
    moments: Tensor
    frozen_token: Tensor
    samples: np.ndarray

    def part(self, rows: slice) -> TokenizerBatch:
        """Return some rows of the batch."""
        images = None if self.images is None else self.images[rows]
        return TokenizerBatch(images, self.moments[rows], self.frozen_token[rows], self.samples[rows])

    def pinned(self) -> TokenizerBatch:
        """Return the batch in memory that a GPU copies from while it computes."""
        images = None if self.images is None else self.images.pin_memory()
        return TokenizerBatch(images, self.moments.pin_memory(), self.frozen_token.pin_memory(), self.samples)

    def to(self, device: torch.device | str) -> TokenizerBatch:
        """Return the batch on a device; from pinned memory without waiting."""
        images = None if self.images is None else self.images.to(device, non_blocking=True)
        moments, frozen = (t.to(device, non_blocking=True) for t in (self.moments, self.frozen_token))
        return TokenizerBatch(images, moments, frozen, self.samples)

    def tensors(self) -> list[Tensor]:
        """What it consists of."""
        return [t for t in (self.images, self.moments, self.frozen_token) if t is not None]


@dataclass(frozen=True)
class GeneratorBatch:
    """What a generator step needs.

    Attributes:
        tokens: float32 (B, N, D), not normalised.
        captions: B strings.
        labels: int64 (B,), -1 where a sample has none.
        samples: int64 (B,), sample numbers in the split.
        condition: What captions or labels became, where that was done ahead of the step.
    """

    tokens: Tensor
    captions: list[str]
    labels: Tensor
    samples: np.ndarray
    condition: Condition | None = None

    def part(self, rows: slice) -> GeneratorBatch:
        """Return some rows of the batch."""
        condition = None if self.condition is None else self.condition.index(rows)
        return GeneratorBatch(
            self.tokens[rows], self.captions[rows], self.labels[rows], self.samples[rows], condition
        )

    def pinned(self) -> GeneratorBatch:
        """Return the batch in memory that a GPU copies from while it computes."""
        return GeneratorBatch(self.tokens.pin_memory(), self.captions, self.labels.pin_memory(), self.samples)

    def to(self, device: torch.device | str) -> GeneratorBatch:
        """Return the batch on a device; from pinned memory without waiting."""
        tokens, labels = (t.to(device, non_blocking=True) for t in (self.tokens, self.labels))
        condition = None if self.condition is None else self.condition.to(device)
        return GeneratorBatch(tokens, self.captions, labels, self.samples, condition)

    def tensors(self) -> list[Tensor]:
        """What it consists of."""
        return [self.tokens, self.labels, *([] if self.condition is None else self.condition.tensors())]
