"""The trained tokenizer's token of an image and of its mirror image."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch

from pipelines.dag.op import Batch, Op
from pipelines.encoding.device import ComputeConfig
from reptok.attention import preferred
from reptok.data.transforms import flip, to_float
from reptok.image_tokenizer import ImageTokenizer


@dataclass(frozen=True)
class EncodeTokens(Op):
    """Tokenize images with a trained tokenizer.

    Reads `image` uint8 (B, H, W, 3). Writes `token` float32 (B, 2, N, D); index 0 is the image, 1 its mirror.
    """

    folder: Path
    compute: ComputeConfig
    tokenizer: ImageTokenizer = field(init=False, repr=False, compare=False)

    reads: ClassVar[tuple[str, ...]] = ("image",)
    writes: ClassVar[tuple[str, ...]] = ("token",)

    def setup(self) -> None:
        """Load the tokenizer."""
        from reptok.pretrained import load_tokenizer

        self.compute.prepare()
        object.__setattr__(self, "tokenizer", load_tokenizer(self.folder).eval().to(self.compute.device))

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Batch:
        """Add `token`."""
        images = to_float(batch["image"]).to(self.compute.device)
        both = torch.stack([images, flip(images)], dim=1)  # (B, 2, 3, H, W)
        with preferred(self.compute.device), self.compute.autocast():
            token = self.tokenizer.tokenize(both.flatten(0, 1))
        return {**batch, "token": token.float().cpu().numpy().reshape(len(images), 2, -1, token.shape[-1])}
