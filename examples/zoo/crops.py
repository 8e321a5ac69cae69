"""Many crops of the demo's photographs in memory, as the recipes want them: square and of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from examples.photographs.photographs import Split, sample_crop
from examples.photographs.subjects import SUBJECTS


def square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Area-resize the shorter side to `size` and cut the centre: uint8 (H, W, 3) -> (size, size, 3)."""
    height, width = pixels.shape[:2]
    scale = size / min(height, width)
    target = (max(size, round(width * scale)), max(size, round(height * scale)))
    image = Image.fromarray(pixels).resize(target, Image.Resampling.BOX)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


class Draw(Protocol):
    """How a recipe gets its pictures."""

    def __call__(self, split: Split, per_subject: int, seed: int, size: int = 64) -> CropPool:
        """`per_subject` pictures of every subject, in turn; the same arguments give the same pool."""


@dataclass(frozen=True)
class CropPool:
    """Crops with their subjects.

    Attributes:
        pixels: uint8 (N, 3, size, size), the subjects in turn.
        labels: int64 (N,), number of each crop's subject.
    """

    pixels: Tensor
    labels: Tensor

    @classmethod
    def draw(cls, split: Split, per_subject: int, seed: int, size: int = 64) -> CropPool:
        """Draw `per_subject` crops of every subject; the same arguments give the same pool."""
        rng = np.random.default_rng([seed, split == "val"])
        rows = [square(sample_crop(s, split, rng), size) for _ in range(per_subject) for s in SUBJECTS]
        pixels = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()
        return cls(pixels, torch.arange(len(SUBJECTS)).repeat(per_subject))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def subjects(self) -> int:
        """How many there are."""
        return int(self.labels.max()) + 1

    def images(self, indices: Tensor | slice) -> Tensor:
        """The chosen crops as float (B, 3, size, size) in [-1, 1]."""
        return self.pixels[indices].float() / 127.5 - 1
