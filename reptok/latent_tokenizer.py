"""The patches of a VAE latent as an image's tokens: the space of the paper's attention baselines (DiT, SiT).

Nothing trains here. It has the face of :class:`reptok.tokenizer.RepTok`, so that the same generator, stages
and pipeline serve both: one learned token per image there, (h/p)(w/p) patches of the latent here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reptok.autoencoder import Autoencoder
from reptok.configs import LatentTokenizerConfig
from reptok.decoder.patching import patchify, unpatchify
from reptok.flow.solver import Solver
from reptok.image_tokenizer import ImageTokenizer


class LatentTokenizer(ImageTokenizer):
    """Images (B, 3, S, S) to the patches (B, K, D) of their latents and back: K = (S/f/p)^2, D = p^2 C."""

    def __init__(self, config: LatentTokenizerConfig, *, autoencoder: Autoencoder | None = None) -> None:
        """Build from the configuration, or around a given VAE.

        Raises:
            ValueError: The image size is not a multiple of the VAE's factor times the patch size.
        """
        super().__init__()
        self.config = config
        self.autoencoder = autoencoder if autoencoder is not None else Autoencoder(config.autoencoder)
        unit = self.autoencoder.downsample * config.patch_size
        if config.image_size % unit:
            raise ValueError(
                f"image_size {config.image_size} must be a multiple of {unit}, "
                f"the VAE's {self.autoencoder.downsample} times patch_size {config.patch_size}"
            )
        self.side = config.image_size // unit

    @property
    def image_size(self) -> int:
        """Side of the square images it takes and makes."""
        return self.config.image_size

    @property
    def num_tokens(self) -> int:
        """K, patches per image."""
        return self.side**2

    @property
    def token_dim(self) -> int:
        """D, numbers per patch."""
        return self.config.patch_size**2 * self.autoencoder.channels

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to patches (B, K, D) of the posterior's scaled mean."""
        return patchify(self.autoencoder.encode(images), self.config.patch_size)

    def detokenize_latent(
        self,
        token: Tensor,
        *,
        noise: Tensor | None = None,
        num_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Patches (B, K, D) to the latents (B, C, h, w) that they are.

        Nothing is drawn: the keywords, which steer RepTok's flow decoder, change nothing here.
        """
        return unpatchify(token, self.config.patch_size, (self.side, self.side))
