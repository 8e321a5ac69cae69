"""CLIP score (Hessel et al., 2021): how well an image fits the text that asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize


class ClipScore:
    """100 * max(cos(image, text), 0) per pair, with an open_clip model; the factor is the field's usual one.

    Hessel et al. take 2.5 instead. As a network that looks at sets of images its features are the embeddings
    of images, before they are scaled to length 1.
    """

    name = "clip"

    def __init__(self, model: Any, tokenize: Callable[[list[str]], Tensor], image_size: int,
                 mean: Sequence[float], std: Sequence[float], device: str = "cpu"):  # fmt: skip
        self.model = model.eval().requires_grad_(False).to(device)
        self.tokenize = tokenize
        self.image_size, self.mean, self.std, self.device = image_size, list(mean), list(std), device

    @classmethod
    def from_weights(
        cls, weights: str | Path, architecture: str = "ViT-B-16", device: str = "cpu"
    ) -> ClipScore:
        """Load an open_clip architecture with weights from a file.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it does not fit the architecture, its activation included.
        """
        if not Path(weights).is_file():
            raise FileNotFoundError(f"no CLIP weights at {weights}: download them once, then give their path")
        import open_clip

        from reptok.open_clip_models import from_file

        model: Any = from_file(architecture, Path(weights))
        size = model.visual.image_size
        size = size[0] if isinstance(size, (tuple, list)) else size
        tokenizer = open_clip.get_tokenizer(architecture)
        return cls(model, tokenizer, size, model.visual.image_mean, model.visual.image_std, device)

    @classmethod
    def from_folder(cls, folder: str | Path, device: str = "cpu") -> ClipScore:
        """Load a folder of open_clip's (`open_clip_models.load_model`), or one of the hub; raises alike."""
        from reptok.folder import local_folder
        from reptok.open_clip_models import load_model, tokenizer_of

        model, mean, std = load_model(local_folder(folder))
        size = model.visual.image_size
        size = size[0] if isinstance(size, (tuple, list)) else size
        return cls(model, tokenizer_of(model), size, mean, std, device)

    def __call__(self, images: Tensor, texts: list[str]) -> Tensor:
        """Scores (B,) in [0, 100] of images (B, 3, H, W) in [-1, 1] with one text each.

        Raises:
            ValueError: if the numbers of images and texts differ.
        """
        return 100 * self.cosine(images, texts).clamp(min=0)

    def cosine(self, images: Tensor, texts: list[str]) -> Tensor:
        """Cosines (B,) in [-1, 1] of images (B, 3, H, W) in [-1, 1] with one text each.

        Raises:
            ValueError: if the numbers of images and texts differ.
        """
        return self._cosine(self._embedded(images), texts)

    def of_all(self, pixels: Tensor, texts: Sequence[str], batch_size: int) -> Tensor:
        """Scores (N,) of uint8 images (N, 3, H, W), so many at a time, on the CPU."""
        starts = range(0, len(pixels), batch_size)
        parts = [slice(start, start + batch_size) for start in starts]
        return torch.cat([self(pixels[p].float() / 127.5 - 1, list(texts[p])).cpu() for p in parts])

    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """`pooled` (B, D) of uint8 images (B, 3, H, W)."""
        return {"pooled": self._embedded(pixels.float() / 127.5 - 1)}

    def fit(self, pooled: Tensor, texts: list[str]) -> Tensor:
        """Scores (B,) in [0, 100] of what `look` saw, with one text each; raises as above."""
        return 100 * self._cosine(pooled.to(self.device), texts).clamp(min=0)

    @torch.no_grad()
    def _embedded(self, images: Tensor) -> Tensor:
        x = (images.clamp(-1, 1).to(self.device) + 1) / 2
        x = resize(x, [self.image_size], interpolation=InterpolationMode.BICUBIC, antialias=True)
        x = center_crop(x, [self.image_size])
        embedded: Tensor = self.model.encode_image(normalize(x, self.mean, self.std)).float()
        return embedded

    @torch.no_grad()
    def _cosine(self, embedded: Tensor, texts: list[str]) -> Tensor:
        if len(embedded) != len(texts):
            raise ValueError(f"{len(embedded)} images but {len(texts)} texts")
        text = F.normalize(self.model.encode_text(self.tokenize(texts).to(self.device)).float(), dim=-1)
        return (F.normalize(embedded, dim=-1) * text).sum(-1)
