"""RepTok, the tokenizer: an image becomes one continuous token, and a flow decoder makes it an image again.

B batch, K tokens per image (one in the paper), D token width, (C, h, w) the latent. Time runs from noise
(0) to data (1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reptok.autoencoder import Autoencoder
from reptok.configs import RepTokConfig
from reptok.decoder.transformer import Decoder
from reptok.encoder.preservation import preservation_loss
from reptok.encoder.projection import TokenProjection
from reptok.encoder.ssl import SSLEncoder, build_encoder
from reptok.flow.loss import velocity_loss
from reptok.flow.noise import expand_seed, noise_from_seeds
from reptok.flow.path import LINEAR_PATH
from reptok.flow.sample import sample
from reptok.flow.solver import Solver
from reptok.flow.time import sample_logit_normal
from reptok.image_tokenizer import ImageTokenizer
from reptok.weights import check_keys

LATENT_NOISE_STREAM = 0  # the number of its noise among those that share a seed


class TokenizerLosses(NamedTuple):
    """Per-sample losses (B,): flow-matching regression, and 1 - cosine to the frozen token."""

    velocity: Tensor
    preservation: Tensor


class RepTok(ImageTokenizer):
    """Encoder, projection, decoder and VAE; the token embedding, the projection and the decoder train."""

    def __init__(
        self,
        config: RepTokConfig,
        *,
        encoder: SSLEncoder | None = None,
        autoencoder: Autoencoder | None = None,
    ) -> None:
        """Build from the configuration; ready-made frozen parts take the place of those it names.

        Raises:
            ValueError: Parts disagree on token width, token number or latent channels.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder if encoder is not None else build_encoder(config.encoder)
        self.autoencoder = autoencoder if autoencoder is not None else Autoencoder(config.autoencoder)
        self.decoder = Decoder(config.decoder)
        self.projection = TokenProjection(
            config.decoder.token_dim, config.decoder.width, config.decoder.num_tokens
        )
        for name, mine, other, source in (
            ("token_dim", config.decoder.token_dim, self.encoder.dim, "encoder's width"),
            ("num_tokens", config.decoder.num_tokens, self.encoder.num_tokens, "encoder.num_tokens"),
            ("latent_channels", config.decoder.latent_channels, self.autoencoder.channels, "VAE's channels"),
        ):
            if mine != other:
                raise ValueError(f"decoder.{name} is {mine}, but the {source} is {other}; set them equal")

    @property
    def image_size(self) -> int:
        """Side of the square images it makes."""
        return self.config.decoder.latent_size * self.autoencoder.downsample

    @property
    def num_tokens(self) -> int:
        """K, tokens per image."""
        return self.config.decoder.num_tokens

    @property
    def token_dim(self) -> int:
        """D, numbers per token."""
        return self.config.decoder.token_dim

    @torch.no_grad()
    def tokenize(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to tokens (B, D), or (B, K, D) when there are several per image."""
        tokens = self.encoder(images)
        return tokens[:, 0] if self.encoder.num_tokens == 1 else tokens

    def velocity(self, x_t: Tensor, t: Tensor, token: Tensor) -> Tensor:
        """The decoder's velocity (B, C, h, w) at latents of that shape, times (B,), tokens (B, [K,] D)."""
        return self.decoder(x_t, t, self.projection(self._as_sequence(token)))

    @torch.no_grad()
    def detokenize_latent(
        self,
        token: Tensor,
        *,
        noise: Tensor | None = None,
        num_steps: int | Sequence[float] = 50,
        solver: str | Solver = "euler",
        seed: int | Sequence[int] = 0,
        return_intermediates: bool = False,
    ) -> Tensor:
        """Sample scaled latents (B, C, h, w) for tokens (B, D) or (B, K, D).

        Args:
            token: Tokens, as :meth:`tokenize` or a generator gives them.
            noise: See :class:`reptok.image_tokenizer.DecoderSampling`, like the rest.
            num_steps: As above.
            solver: As above.
            seed: As above.
            return_intermediates: Return the whole walk, (S + 1, B, C, h, w), the noise first.
        """
        features = self.projection(self._as_sequence(token))
        if noise is None:
            seeds = expand_seed(seed, len(token))
            noise = noise_from_seeds(seeds, self.decoder.latent_shape, stream=LATENT_NOISE_STREAM)
        noise = noise.to(device=features.device, dtype=features.dtype)
        return sample(
            lambda x, t: self.decoder(x, t, features), noise, num_steps=num_steps, solver=solver,
            seeds=seed, stream=LATENT_NOISE_STREAM, return_intermediates=return_intermediates,
        )  # fmt: skip

    def losses(
        self,
        images: Tensor | None,
        *,
        latents: Tensor | None = None,
        noise: Tensor | None = None,
        t: Tensor | None = None,
        frozen_token: Tensor | None = None,
    ) -> TokenizerLosses:
        """The two training losses of a batch; what is not given is computed or drawn.

        Args:
            images: (B, 3, H, W) in [-1, 1], what the encoder sees; None trains the decoder alone, on the
                frozen tokens (latents and frozen_token must be given then).
            latents: Scaled latents (B, C, h, w) of the same images; or (n B, C, h, w) with noise and t alike,
                the whole batch n times: every image is encoded once and decoded from n draws.
            noise: Standard normal, shaped like the latents.
            t: Times (B,); otherwise logit-normal.
            frozen_token: The unadapted encoder's tokens (B, D) or (B, K, D).
        """
        losses = self.losses_by_draw(images, latents=latents, noise=noise, t=t, frozen_token=frozen_token)
        return losses._replace(velocity=losses.velocity.mean(0))

    def losses_by_draw(
        self,
        images: Tensor | None,
        *,
        latents: Tensor | None = None,
        noise: Tensor | None = None,
        t: Tensor | None = None,
        frozen_token: Tensor | None = None,
    ) -> TokenizerLosses:
        """As :meth:`losses`, the velocity's (n, B) for each of the n draws that an image is decoded from."""
        if images is None and (latents is None or frozen_token is None):
            raise ValueError("without images the losses need latents and frozen_token")
        if latents is None:
            assert images is not None
            moments = self.autoencoder.encode_moments(images)
            posterior = torch.randn_like(moments.chunk(2, 1)[0]) if self.config.autoencoder.sample else None
            latents = self.autoencoder.latents_from_moments(moments, posterior)
        if t is None:
            t = sample_logit_normal(len(latents), device=latents.device)
        if noise is None:
            noise = torch.randn_like(latents)
        tokens, target = self.adapted(images, frozen_token)
        draws = len(latents) // len(tokens)
        velocity = self.velocity_losses(tokens.repeat(draws, 1, 1), latents, noise, t).reshape(draws, -1)
        return TokenizerLosses(velocity=velocity, preservation=preservation_loss(tokens, target))

    def adapted(self, images: Tensor | None, frozen_token: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, K, D) of images in [-1, 1], and the unadapted encoder's, their target.

        Without images the tokens are the unadapted ones, which are encoded where they are not given.
        """
        if frozen_token is None:
            assert images is not None
            frozen_token = self.encoder.frozen(images)
        target = self._as_sequence(frozen_token)
        if images is None:  # data-parallel training wants the embedding in the graph
            return target + 0.0 * self.encoder.embedding.sum(), target
        return self.encoder(images), target

    def velocity_losses(self, tokens: Tensor, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Flow-matching losses (B,) of latents (B, C, h, w), given their tokens (B, K, D), at times (B,)."""
        point = LINEAR_PATH.sample(noise, latents, t)
        return velocity_loss(self.velocity(point.x_t, t, tokens), point.v_t)

    forward = losses  # what a data-parallel wrapper calls

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that receive gradient."""
        return [p for p in self.parameters() if p.requires_grad]

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """What the configuration does not give: embedding, projection, decoder with its time frequencies."""
        names = {f"encoder.{k}" for k in self.encoder.trainable_keys()}
        return {
            k: v
            for k, v in self.state_dict().items()
            if k in names or k.startswith(("projection.", "decoder."))
        }

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state_dict` returned.

        Raises:
            ValueError: Names the keys that are missing, left over or of a wrong shape.
        """
        expected = {k: tuple(v.shape) for k, v in self.trainable_state_dict().items()}
        check_keys(expected, state, source="the tokenizer's state")
        self.load_state_dict(dict(state), strict=False)

    def _as_sequence(self, token: Tensor) -> Tensor:
        """(B, D) to (B, 1, D); checks the number and width of tokens."""
        tokens = token[:, None] if token.ndim == 2 else token
        wanted = (self.num_tokens, self.token_dim)
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != wanted:
            raise ValueError(f"tokens must be (B, {wanted[0]}, {wanted[1]}), got {tuple(token.shape)}")
        return tokens
