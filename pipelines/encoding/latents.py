"""What a tokenizer step needs of an image and never changes: VAE moments and the frozen encoder's token.

Both are stored for the image and for its mirror image, so that training can flip without encoding again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pipelines.dag.op import Batch, Op
from pipelines.encoding.device import ComputeConfig
from reptok.attention import preferred
from reptok.autoencoder import Autoencoder
from reptok.configs import AutoencoderConfig, EncoderConfig
from reptok.data.transforms import flip, to_float
from reptok.encoder.ssl import SSLEncoder, build_encoder


@dataclass(frozen=True)
class EncodeLatents(Op):
    """Encode images with the frozen VAE and the frozen encoder.

    Reads `image` uint8 (B, H, W, 3). Writes `moments` float16 (B, 2, 8, h, w), the posterior's mean and
    log-variance, unscaled, and `frozen_token` float32 (B, 2, N, D); index 0 is the image, 1 its mirror image.
    """

    vae: AutoencoderConfig
    encoder: EncoderConfig
    compute: ComputeConfig
    autoencoder: Autoencoder = field(init=False, repr=False, compare=False)
    ssl: SSLEncoder = field(init=False, repr=False, compare=False)

    reads: ClassVar[tuple[str, ...]] = ("image",)
    writes: ClassVar[tuple[str, ...]] = ("moments", "frozen_token")

    def setup(self) -> None:
        """Load both networks."""
        self.compute.prepare()
        object.__setattr__(self, "autoencoder", Autoencoder(self.vae).eval().to(self.compute.device))
        object.__setattr__(self, "ssl", build_encoder(self.encoder).eval().to(self.compute.device))

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Batch:
        """Add `moments` and `frozen_token`."""
        images = to_float(batch["image"]).to(self.compute.device)
        both = torch.stack([images, flip(images)], dim=1)  # (B, 2, 3, H, W)
        with preferred(self.compute.device), self.compute.autocast():
            moments = self.autoencoder.encode_moments(both.flatten(0, 1))
            token = self.ssl.frozen(both.flatten(0, 1))
        return {
            **batch,
            "moments": moments.half().cpu().numpy().reshape(-1, 2, *moments.shape[1:]),
            "frozen_token": token.float().cpu().numpy().reshape(-1, 2, *token.shape[1:]),
        }
