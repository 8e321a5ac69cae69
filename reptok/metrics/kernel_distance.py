"""Kernel distance (KID on Inception's features, Binkowski et al., 2018): unbiased however few the images.

The squared maximum mean discrepancy under the kernel (x.y / D + 1)^3, averaged over random subsets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reptok.metrics.uncertainty import Estimate

SUBSETS, SUBSET = 100, 1000


def kernel_distance(
    samples: Tensor, references: Tensor, *, subsets: int = SUBSETS, size: int = SUBSET, seed: int = 0
) -> Estimate:
    """Compare features (N, D) with (M, D).

    Args:
        samples: features of the generated images.
        references: features of the real ones, by the same network.
        subsets: how many pairs of subsets are drawn.
        size: images of a subset, at most those there are.
        seed: of the drawing.

    Returns:
        Mean over the subsets, and its standard error by the spread of the subsets' values; NaN where a subset
        is more than half of a set.

    Raises:
        ValueError: fewer than two images a subset, or more than a set has.
    """
    if not 2 <= size <= min(len(samples), len(references)):
        raise ValueError(
            f"subsets of {size} images need at least that many, and two: {len(samples)}, {len(references)}"
        )
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(subsets, dtype=torch.float64)
    for i in range(subsets):
        x = samples[torch.randperm(len(samples), generator=generator)[:size]].double()
        y = references[torch.randperm(len(references), generator=generator)[:size]].double()
        values[i] = _discrepancy(x, y)
    apart = subsets > 1 and 2 * size <= min(len(samples), len(references))  # else all are nearly the same
    spread = float(values.std()) if apart else math.nan
    return Estimate(float(values.mean()), spread / math.sqrt(subsets), len(samples))


def _discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate from sets of equal size (n, D)."""
    n = len(x)
    within = sum(kernel.sum() - kernel.diagonal().sum() for kernel in (_kernel(x, x), _kernel(y, y)))
    return within / (n * (n - 1)) - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
