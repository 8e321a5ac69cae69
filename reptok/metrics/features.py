"""Feature extractors under one protocol: images in, one vector per image out.

The extractor's name becomes part of the metric's name, so that a distance on the frozen encoder is never read
as an FID.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor

from reptok.metrics.reconstruction import truncate_to_uint8
from reptok.weights import check_finite


class FeatureExtractor(Protocol):
    """Anything that maps images (B, 3, H, W) in [-1, 1] to float32 features (B, D)."""

    name: str  # short, as used in metric names: "vit", "inception"
    title: str  # what a reader of a report sees

    def __call__(self, images: Tensor) -> Tensor: ...


class EncoderFeatures:
    """The frozen self-supervised encoder's own `[cls]`, for places without Inception weights."""

    name = "vit"

    def __init__(self, features: Callable[[Tensor], Tensor], title: str):
        self.title = title
        self._features = features

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        return self._features(images.clamp(-1, 1)).float()


class InceptionFeatures:
    """The 2048 pooled features of the original FID Inception, through torch-fidelity."""

    name = "inception"
    title = "Inception-v3 (FID)"

    def __init__(self, weights: str | Path, device: str = "cpu"):
        """Load the network.

        Args:
            weights: torch-fidelity's `weights-inception-2015-12-05` as `.pth` or `.safetensors`.
            device: torch device to run on.

        Raises:
            FileNotFoundError: if there is no such file.
            ImportError: if torch-fidelity is not installed.
        """
        state = load_foreign_weights(weights)
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("Inception features need torch-fidelity: pip install torch-fidelity") from error
        # torch-fidelity opens its file without protection against code in it, so it gets a copy of the
        # tensors that were opened safely.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        network = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=buffer)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        features: Tensor = self.network(truncate_to_uint8(images).to(self.device))[0]
        return features.flatten(1).float()


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
