"""Flow-matching transformer from a token and a noisy latent to the latent's velocity (paper, section 3.2).

The projected token is prepended to the patches of the latent and sits at the centre of their canvas. B
batch, N patches, D width, K tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reptok.decoder.blocks import DecoderBlock, RMSNorm
from reptok.decoder.conditioning import TimeMapping
from reptok.decoder.patching import patchify, unpatchify
from reptok.decoder.rope import axial_angles, axial_frequencies, grid_positions


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the decoder; widths left at 0 follow from ``width`` as in the paper's XL model.

    Attributes:
        width: D; a multiple of 8 * heads.
        mapping_width: Width of the time condition (0: like ``width``, at most 1024).
        mapping_ff: Hidden width of the mapping network (0: 3 * mapping_width).
        ff: Hidden width of the blocks' SwiGLU (0: 3 * width).
        latent_size: Height and width of the square latent it samples by default.
        token_dim: Width of the token it decodes.
        num_tokens: K, tokens per image.
    """

    width: int = 1152
    depth: int = 28
    heads: int = 16
    patch_size: int = 2
    latent_channels: int = 4
    latent_size: int = 32
    mapping_width: int = 0
    mapping_depth: int = 2
    mapping_ff: int = 0
    ff: int = 0
    token_dim: int = 768
    num_tokens: int = 1

    def __post_init__(self) -> None:
        if self.width % (8 * self.heads):
            raise ValueError(f"decoder width {self.width} must be a multiple of 8 * heads = {8 * self.heads}")
        if self.token_dim > self.width:
            raise ValueError(
                f"decoder width {self.width} must be at least the token's width {self.token_dim}"
            )
        if self.latent_size % self.patch_size:
            raise ValueError(
                f"latent_size {self.latent_size} must be a multiple of patch_size {self.patch_size}"
            )
        object.__setattr__(self, "mapping_width", self.mapping_width or min(self.width, 1024))
        object.__setattr__(self, "mapping_ff", self.mapping_ff or 3 * self.mapping_width)
        object.__setattr__(self, "ff", self.ff or 3 * self.width)


class Decoder(nn.Module):
    """Predict the velocity of a latent on its way from noise (t = 0) to data (t = 1)."""

    frequencies: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        features = config.patch_size**2 * config.latent_channels
        self.patch_in = nn.Linear(features, config.width, bias=False)
        self.sequence_in = nn.Linear(config.width, config.width, bias=False)
        self.time = TimeMapping(config.mapping_width, config.mapping_ff, config.mapping_depth)
        self.blocks = nn.ModuleList(
            [
                DecoderBlock(config.width, config.heads, config.ff, config.mapping_width)
                for _ in range(config.depth)
            ]
        )
        self.out_norm = RMSNorm(config.width)
        self.patch_out = nn.Linear(config.width, features, bias=False)
        nn.init.zeros_(self.patch_out.weight)
        frequencies = axial_frequencies(config.width // config.heads, config.heads)
        self.register_buffer("frequencies", frequencies, persistent=False)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent of the configured size."""
        return self.config.latent_channels, self.config.latent_size, self.config.latent_size

    def forward(self, x_t: Tensor, t: Tensor, token: Tensor) -> Tensor:
        """Velocity (B, C, h, w) at ``x_t`` of the same shape.

        Args:
            x_t: Noisy latent (B, C, h, w) of any size that the patches divide.
            t: Times (B,), 0 noise to 1 data.
            token: Projected tokens (B, K, D).
        """
        grid = (x_t.shape[-2] // self.config.patch_size, x_t.shape[-1] // self.config.patch_size)
        patches = self.patch_in(patchify(x_t, self.config.patch_size))
        x = self.sequence_in(torch.cat([token.to(patches.dtype), patches], dim=1))  # (B, K + N, D)
        cos, sin = self._rotation(grid, token.shape[1])
        c = self.time(t)
        for block in self.blocks:
            x = block(x, c, cos, sin)
        x = self.patch_out(self.out_norm(x[:, token.shape[1] :]))
        return unpatchify(x, self.config.patch_size, grid)

    def _rotation(self, grid: tuple[int, int], num_tokens: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine (K + N, 1, H, d_head/4) of the rotary angles; tokens sit at (0, 0)."""
        positions = grid_positions(*grid).to(self.frequencies.device)
        positions = torch.cat([positions.new_zeros(num_tokens, 2), positions])
        angles = axial_angles(positions, self.frequencies.float())[:, None]
        return angles.cos(), angles.sin()
