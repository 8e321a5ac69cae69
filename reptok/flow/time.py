"""Distributions of training times and the fixed times of validation; t = 0 is noise, t = 1 is data."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_uniform(
    num: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Draw ``num`` times uniformly from [0, 1): the generator's training distribution."""
    return torch.rand(num, generator=generator, device=device)


def sample_logit_normal(
    num: int,
    *,
    loc: float = 0.0,
    scale: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw ``num`` times sigmoid(N(loc, scale^2)) in (0, 1): the decoder's training distribution."""
    return torch.sigmoid(loc + scale * torch.randn(num, generator=generator, device=device))


def segment_midpoints(num_segments: int = 8) -> Tensor:
    """Midpoints of equal segments of [0, 1], at which the validation loss is reported; (num_segments,)."""
    return (torch.arange(num_segments, dtype=torch.float32) + 0.5) / num_segments
