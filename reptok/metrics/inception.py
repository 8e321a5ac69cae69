"""The Inception network of FID in its original form, through torch-fidelity; for sFID and the score, too."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor

from reptok.data.transforms import quantised
from reptok.metrics.features import load_foreign_weights
from reptok.metrics.protocols import INCEPTION

SPATIAL_CHANNELS = 7
"""Of the seventh mixed layer's first branch: at 17 x 17 positions they are the 2,023 features of sFID."""


class InceptionFeatures:
    """The 2048 pooled features of the original FID Inception, through torch-fidelity."""

    name = INCEPTION
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
            raise ImportError(
                "Inception features need torch-fidelity: pip install 'reptok[metrics]'"
            ) from error
        # torch-fidelity opens its file without protection against code in it, so it gets a copy of the
        # tensors that were opened safely.
        buffer = io.BytesIO()
        torch.save(state, buffer)
        buffer.seek(0)
        wanted = ["2048", "logits_unbiased"]
        network = FeatureExtractorInceptionV3("fid", wanted, feature_extractor_weights_path=buffer)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self._spatial: Tensor | None = None
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep)

    def _keep(self, module: object, arguments: object, output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)

    @torch.no_grad()
    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the network says of uint8 images (B, 3, H, W), float32.

        Returns:
            `pooled` (B, 2048), of FID, KID, precision and recall; `spatial` (B, 2023), of sFID: rows,
            columns, channels, as in ADM's statistics; `logits` (B, 1008) without the last layer's offset, of
            the Inception score.
        """
        pooled, logits = self.network(pixels.to(self.device))
        spatial, self._spatial = self._spatial, None
        assert spatial is not None
        return {"pooled": pooled.float(), "spatial": spatial.float(), "logits": logits.float()}

    def __call__(self, images: Tensor) -> Tensor:
        """Features (B, 2048) of images (B, 3, H, W) in [-1, 1], quantised by truncation."""
        return self.look(quantised(images, "truncate"))["pooled"]
