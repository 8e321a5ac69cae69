"""Flow-matching transformer from a token and a noisy latent to the latent's velocity (paper, section 3.2).

The projected token is prepended to the patches of the latent and sits at the centre of their canvas. B
batch, N patches, D width, K tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reptok.configs import DecoderConfig
from reptok.decoder.blocks import DecoderBlock, RMSNorm
from reptok.decoder.conditioning import TimeMapping
from reptok.decoder.patching import patchify, unpatchify
from reptok.decoder.rope import axial_angles, axial_frequencies, grid_positions


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
        """Cosine and sine (K + N, H, d_head/4) of the rotary angles; tokens sit at (0, 0)."""
        # Made where they are used: a copy from the host would wait for all work queued on a GPU.
        positions = grid_positions(*grid, self.frequencies.device)
        positions = torch.cat([positions.new_zeros(num_tokens, 2), positions])
        angles = axial_angles(positions, self.frequencies.float())
        return angles.cos(), angles.sin()
