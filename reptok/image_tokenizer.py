"""What an image tokenizer is: pixels to tokens and back, whatever the tokens are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn

from reptok.autoencoder import Autoencoder
from reptok.flow.solver import Solver


class DecoderSampling(TypedDict, total=False):
    """How a latent is sampled for a token; the keywords of `detokenize_latent`.

    Attributes:
        noise: Starting noise (B, C, h, w) of any size the patches divide; without it ``seed`` decides.
        num_steps: Steps of the solver, 50 by default, or its times; quality saturates at about 20 steps.
        solver: A name of ``reptok.flow.solver.SOLVERS`` ("euler", "heun", "sde", ...), or a solver.
        seed: One seed per sample, or s for s, s + 1, ...: a sample's noise does not depend on its batch.
    """

    noise: Tensor | None
    num_steps: int | Sequence[float]
    solver: str | Solver
    seed: int | Sequence[int]


class ImageTokenizer(nn.Module, ABC):
    """The face of :class:`reptok.tokenizer.RepTok` and of :class:`reptok.latent_tokenizer.LatentTokenizer`.

    B batch, K tokens per image, D token width, (C, h, w) the latent, S the side of a square image.

    Attributes:
        autoencoder: The VAE in whose latents the images are made.
    """

    autoencoder: Autoencoder

    @property
    @abstractmethod
    def image_size(self) -> int:
        """S."""

    @property
    @abstractmethod
    def num_tokens(self) -> int:
        """K."""

    @property
    @abstractmethod
    def token_dim(self) -> int:
        """D."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.autoencoder.parameters()).device

    @abstractmethod
    def tokenize(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [-1, 1] to tokens (B, K, D), or (B, D) where RepTok's K is 1."""

    @abstractmethod
    def detokenize_latent(self, token: Tensor, **sampling: Unpack[DecoderSampling]) -> Tensor:
        """Tokens to scaled latents (B, C, h, w)."""

    def detokenize(self, token: Tensor, **sampling: Unpack[DecoderSampling]) -> Tensor:
        """Tokens to images (B, 3, S, S) around [-1, 1], unclamped.

        Args:
            token: Tokens, as :meth:`tokenize` or a generator gives them.
            **sampling: See :class:`DecoderSampling`.

        Raises:
            TypeError: There is no such keyword.
        """
        return self.autoencoder.decode(self.detokenize_latent(token, **sampling))

    def interpolate(
        self,
        start: Tensor,
        end: Tensor,
        weights: Sequence[float],
        *,
        num_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int = 0,
    ) -> Tensor:
        """Walk straight from one token to another, with the same noise at every place.

        Args:
            start: The token ([K,] D) at weight 0.
            end: The one at weight 1.
            weights: The places.
            num_steps: See :class:`DecoderSampling`, like the rest.
            solver: As above.
            seed: As above.

        Returns:
            Images (len(weights), 3, S, S) around [-1, 1], unclamped.
        """
        walk = torch.stack([torch.lerp(start, end, weight) for weight in weights])
        return self.detokenize(walk, num_steps=num_steps, solver=solver, seed=[seed] * len(walk))

    def reconstruct(self, images: Tensor, **sampling: Unpack[DecoderSampling]) -> Tensor:
        """Images to their tokens and back; arguments of :meth:`detokenize`."""
        return self.detokenize(self.tokenize(images), **sampling)
