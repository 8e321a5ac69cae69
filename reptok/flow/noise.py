"""Starting noise that belongs to a sample, not to the batch it is made in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def noise_from_seeds(seeds: Sequence[int], shape: Sequence[int], *, stream: int = 0) -> Tensor:
    """Standard normal noise (len(seeds), *shape), float32 on the CPU, where row i depends on seeds[i] alone.

    Args:
        seeds: One non-negative integer per sample.
        shape: Shape of one sample.
        stream: Numbers independent noises that share a seed (0 the latent's, 1 the token's).
    """
    rows = []
    for seed in seeds:
        if seed < 0:
            raise ValueError(f"seeds must be non-negative, got {seed}")
        generator = torch.Generator().manual_seed((int(seed) << 4) + stream)
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows) if rows else torch.empty(0, *shape)


def expand_seed(seed: int | Sequence[int], num: int) -> list[int]:
    """One seed per sample: an integer s stands for s, s + 1, ...; a sequence must have ``num`` entries."""
    if isinstance(seed, int):
        return list(range(seed, seed + num))
    seeds = [int(s) for s in seed]
    if len(seeds) != num:
        raise ValueError(f"{len(seeds)} seeds were given for {num} samples; give one per sample")
    return seeds
