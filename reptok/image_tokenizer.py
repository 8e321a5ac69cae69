"""What an image tokenizer is: pixels to tokens and back, whatever the tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from reptok.autoencoder import Autoencoder
from reptok.flow.solver import Solver


class ImageTokenizer(Protocol):
    """The face of :class:`reptok.tokenizer.RepTok` and of :class:`reptok.latent_tokenizer.LatentTokenizer`.

    B batch, K tokens per image, D token width, S the side of a square image.
    """

    @property
    def autoencoder(self) -> Autoencoder:
        """The VAE in whose latents the images are made."""

    @property
    def image_size(self) -> int:
        """S."""

    @property
    def num_tokens(self) -> int:
        """K."""

    @property
    def token_dim(self) -> int:
        """D."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    def tokenize(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to tokens (B, K, D), or (B, D) where K is 1."""

    def detokenize(
        self,
        token: Tensor,
        *,
        noise: Tensor | None = None,
        num_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Tokens to images (B, 3, S, S) around [-1, 1], unclamped."""

    def reconstruct(
        self,
        images: Tensor,
        *,
        noise: Tensor | None = None,
        num_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int | Sequence[int] = 0,
    ) -> Tensor:
        """Images to their tokens and back."""
