"""Feature extractors under one protocol: images in, one vector per image out.

The extractor's name becomes part of the metric's name, so that a distance on the frozen encoder is never read
as an FID.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
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
    """A frozen self-supervised encoder's own `[cls]`, for places without Inception weights."""

    def __init__(self, features: Callable[[Tensor], Tensor], title: str, name: str = ENCODER):
        self.title, self.name = title, name
        self._features = features

    @classmethod
    def from_folder(
        cls, folder: str | Path, device: str = "cpu", name: str = ENCODER, side: int | None = None
    ) -> EncoderFeatures:
        """Load a timm folder.

        Args:
            folder: The folder.
            device: Torch device to run on.
            name: Of the network, as in the metrics' names.
            side: Of the images that it sees in pixels; None for what its configuration names, or 224.
        """
        from reptok.configs import EncoderConfig
        from reptok.encoder.ssl import build_encoder
        from reptok.encoder.vit import read_architecture

        if side is None:
            size = read_architecture(Path(folder)).model_args.get("img_size", DEFAULT_SIDE)
            side = size if isinstance(size, int) else size[0]
        config = EncoderConfig(name="folder", path=str(folder), image_size=side, trainable="nothing")
        encoder = build_encoder(config).eval().to(device)
        return cls(lambda images: encoder.features(images.to(device)), f"the encoder in {folder}", name)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._features(images.clamp(-1, 1)).float()

    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """`pooled` (B, D) of uint8 images (B, 3, H, W)."""
        return {"pooled": self(pixels.float() / 127.5 - 1)}


class Dinov2Features(EncoderFeatures):
    """The recipe of FD-DINOv2 (Stein et al., 2023): 224 pixels by Pillow's bicubic filter, then the `[cls]`.

    Its network is the ViT-L/14 without registers (`timm/vit_large_patch14_dinov2.lvd142m`).
    """

    SIDE = 224

    @classmethod
    def of(cls, folder: str | Path, device: str = "cpu") -> Dinov2Features:
        """Load a timm folder, whose table of positions is interpolated to 224 pixels."""
        found = cls.from_folder(folder, device, "dinov2", cls.SIDE)
        assert isinstance(found, cls)
        return found

    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """`pooled` (B, D) of uint8 images (B, 3, H, W)."""
        pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
        resized = [np.asarray(p.resize((self.SIDE, self.SIDE), Image.Resampling.BICUBIC)) for p in pictures]
        return super().look(torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2))


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
