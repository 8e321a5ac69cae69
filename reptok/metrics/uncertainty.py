"""How far a score may be trusted: standard errors per image, paired differences, distances without bias.

A Frechet distance grows as images get fewer (Chong & Forsyth, 2020): from N of them it is about
d(inf) + c / N. A line through subsets of several sizes ends, at 1 / N = 0, in a value that no longer depends
on how many images were made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reptok.metrics.frechet import FeatureStatistics, Moments, frechet_distance

POINTS, SMALLEST_SHARE = 15, 0.1


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error and the number of images behind it."""

    value: float
    error: float
    images: int

    @property
    def known_error(self) -> float | None:
        """The error, None where there is none."""
        return None if math.isnan(self.error) else self.error

    def __str__(self) -> str:
        """`18.31 ± 0.12 (N = 500)`, with as many digits as the error allows."""
        digits = 2 if not self.error > 0 or not math.isfinite(self.error) else max(0, 1 - _power(self.error))
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f} (N = {self.images:,})"


def mean(values: Tensor) -> Estimate:
    """Mean of one value per image (N,), with s / sqrt(N); one image alone has no error (NaN).

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("a mean needs values")
    values = values.double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Estimate(float(values.mean()), error, len(values))


def share(value: float, images: int) -> Estimate:
    """A share of independent images, in [0, 1], with its binomial error."""
    return Estimate(value, math.sqrt(value * (1 - value) / images) if images else math.nan, images)


def paired_difference(ours: Tensor, theirs: Tensor) -> Estimate:
    """Mean of `ours - theirs` over the same images (N,) in the same order.

    The images' own spread, which both share, cancels: two models are told apart by far fewer images than by
    the errors of their means.

    Raises:
        ValueError: different numbers of images.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"pairs need the same images: {len(ours)} and {len(theirs)}")
    return mean(ours.double() - theirs.double())


def over_seeds(values: Sequence[float], images: int) -> Estimate:
    """Mean of a set's score over sampling seeds, with the standard error of that mean."""
    found = mean(torch.tensor(values, dtype=torch.float64))
    return Estimate(found.value, found.error, images)


def frechet_without_bias(
    features: Tensor, reference: Moments, *, points: int = POINTS, seed: int = 0
) -> Estimate:
    """Frechet distance extrapolated to infinitely many samples.

    Args:
        features: (N, D) of the samples, N well above D for a line to fit.
        reference: statistics of the real images, whose own number stays as it is.
        points: sizes of subset, evenly spread from a tenth of N to N.
        seed: of the subsets, each of which is drawn anew.

    Returns:
        The line's value at 1 / N = 0, with its standard error by the scatter around the line.

    Raises:
        ValueError: fewer than three points, or too few samples for them.
    """
    smallest = max(2, math.ceil(SMALLEST_SHARE * len(features)))
    sizes = torch.linspace(smallest, len(features), points).round().long().unique()
    if len(sizes) < 3:
        raise ValueError(f"{len(features)} samples are too few for a line through three subsets")
    generator = torch.Generator().manual_seed(seed)
    distances = []
    for size in sizes.tolist():
        chosen = torch.randperm(len(features), generator=generator)[:size]
        distances.append(frechet_distance(FeatureStatistics.of(features, chosen), reference))
    x, y = 1 / sizes.double(), torch.tensor(distances, dtype=torch.float64)
    design = torch.stack([torch.ones_like(x), x], 1)
    inverse = torch.linalg.inv(design.T @ design)
    line = inverse @ (design.T @ y)
    scatter = (y - design @ line).square().sum() / (len(sizes) - 2)
    return Estimate(float(line[0]), float((scatter * inverse[0, 0]).sqrt()), len(features))


def _power(number: float) -> int:
    """Exponent of ten of a positive number."""
    return math.floor(math.log10(number))
