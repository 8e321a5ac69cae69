"""Time conditioning of the decoder: Fourier features and a small mapping network.

Only the time enters here; the token conditions the decoder through attention alone.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from reptok.decoder.blocks import RMSNorm, SwiGLU


class FourierFeatures(nn.Module):
    """[cos(2 pi s w), sin(2 pi s w)] of the noise level s = 1 - t, with fixed normal frequencies w.

    The noise level, not the time: the authors' decoder counts from data to noise, and its weights stay
    usable as they are.
    """

    weight: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(width // 2))

    def forward(self, t: Tensor) -> Tensor:
        """Times (B,) in [0, 1] to features (B, width)."""
        angles = 2 * math.pi * (1 - t.float())[:, None] * self.weight
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MappingBlock(nn.Module):
    """Pre-normalised residual SwiGLU."""

    def __init__(self, width: int, ff: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.ff = SwiGLU(width, ff)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ff(self.norm(x))


class TimeMapping(nn.Module):
    """Times (B,) to the conditioning vector c (B, width) of all blocks."""

    lr_roles: ClassVar = {"": "mapping"}

    def __init__(self, width: int, ff: int, depth: int) -> None:
        super().__init__()
        self.features = FourierFeatures(width)
        self.project = nn.Linear(width, width, bias=False)
        self.in_norm = RMSNorm(width)
        self.blocks = nn.ModuleList([MappingBlock(width, ff) for _ in range(depth)])
        self.out_norm = RMSNorm(width)

    def forward(self, t: Tensor) -> Tensor:
        x = self.in_norm(self.project(self.features(t).to(self.project.weight.dtype)))
        for block in self.blocks:
            x = block(x)
        return self.out_norm(x)
