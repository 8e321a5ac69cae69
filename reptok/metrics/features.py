"""Feature extractors under one protocol: images in, one vector per image out.

The extractor's name becomes part of the metric's name, so that a distance on the frozen encoder is never read
as an FID.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from reptok.metrics.protocols import ENCODER
from reptok.weights import check_finite

DEFAULT_SIDE = 224


class FeatureExtractor(Protocol):
    """Anything that maps images (B, 3, H, W) in [-1, 1] to float32 features (B, D)."""

    name: str  # short, as used in metric names: "vit", "inception"
    title: str  # what a reader of a report sees

    def __call__(self, images: Tensor) -> Tensor: ...


class EncoderFeatures:
    """The frozen self-supervised encoder's own `[cls]`, for places without Inception weights."""

    name = ENCODER

    def __init__(self, features: Callable[[Tensor], Tensor], title: str):
        self.title = title
        self._features = features

    @classmethod
    def from_folder(cls, folder: str | Path, device: str = "cpu") -> EncoderFeatures:
        """Load a timm folder; it sees images of the side that its config names, or of 224 pixels."""
        from reptok.configs import EncoderConfig
        from reptok.encoder.ssl import build_encoder
        from reptok.encoder.vit import read_architecture

        size = read_architecture(Path(folder)).model_args.get("img_size", DEFAULT_SIDE)
        side = size if isinstance(size, int) else size[0]
        config = EncoderConfig(name="folder", path=str(folder), image_size=side, trainable="nothing")
        encoder = build_encoder(config).eval().to(device)
        return cls(lambda images: encoder.features(images.to(device)), f"the encoder in {folder}")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._features(images.clamp(-1, 1)).float()

    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """`pooled` (B, D) of uint8 images (B, 3, H, W)."""
        return {"pooled": self(pixels.float() / 127.5 - 1)}


def load_foreign_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from a `.pt`/`.pth` file without executing anything in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if weights are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}: download them once and give the file's path")
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    check_finite({k: v for k, v in state.items() if isinstance(v, Tensor)}, source=str(path))
    return state
