"""Frechet distance between two sets of features, from statistics that stream and merge.

Heusel et al. (2017): both sets are summarised as Gaussians,
d^2 = |mu_a - mu_b|^2 + tr(A) + tr(B) - 2 tr((R^T B R)^1/2) with A = R R^T. The last trace is a sum of square
roots of eigenvalues of a symmetric matrix, those of A B, and stays real where a general matrix square root
may not.

The name belongs to the features: only Inception's 2048 make it "FID". With fewer samples than dimensions the
distance is biased upwards, so compare only figures of equal sample counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Moments(Protocol):
    """A set of features as a Gaussian, float64."""

    @property
    def mean(self) -> Tensor: ...  # (D,)

    @property
    def covariance(self) -> Tensor: ...  # (D, D)


PART = 4096
"""Rows at a time: 50,000 of Inception's features would be 1.6 GB in the numbers of their sums."""


@dataclass(frozen=True)
class Gaussian:
    """Moments that were computed elsewhere: mean (D,) and covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor


class FeatureStatistics:
    """Count, mean and covariance of feature vectors, accumulated in float64.

    Sums are kept around the first batch's mean, so that a large common offset does not eat the digits of the
    covariance. Two accumulators of parts of a set merge into that of the whole.
    """

    def __init__(self, dim: int):
        self.count = 0
        self.shift = torch.zeros(dim, dtype=torch.float64)
        self.sum = torch.zeros(dim, dtype=torch.float64)
        self.outer = torch.zeros(dim, dim, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor, rows: Tensor | None = None) -> FeatureStatistics:
        """Statistics of one set of features (B, D), or of some of its rows (R,)."""
        statistics = cls(features.shape[1])
        for part in (features if rows is None else rows).split(PART):
            statistics.update(part if rows is None else features[part])
        return statistics

    def update(self, features: Tensor) -> None:
        """Add features (B, D).

        Raises:
            ValueError: if the width is not that of the accumulator or a value is not finite.
        """
        if features.ndim != 2 or features.shape[1] != len(self.shift):
            raise ValueError(f"expected features (B, {len(self.shift)}), got {tuple(features.shape)}")
        values = features.detach().to("cpu", torch.float64)
        if not torch.isfinite(values).all():
            raise ValueError("features hold NaN or infinite values: the images or the extractor are broken")
        if self.count == 0 and len(values):
            self.shift = values.mean(0)
        centred = values - self.shift
        self.count += len(values)
        self.sum += centred.sum(0)
        self.outer.addmm_(centred.T, centred)

    def merge(self, other: FeatureStatistics) -> None:
        """Add another accumulator's samples to this one."""
        if other.count == 0:
            return
        if self.count == 0:
            self.shift = other.shift.clone()
        move = other.shift - self.shift  # x - shift = (x - other.shift) + move
        self.outer += other.outer
        self.outer.addr_(other.sum, move).addr_(move, other.sum).addr_(move, move, alpha=other.count)
        self.sum += other.sum + other.count * move
        self.count += other.count

    @property
    def mean(self) -> Tensor:
        """Mean (D,), float64."""
        return self.shift + self.sum / max(self.count, 1)

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (D, D), float64.

        Raises:
            ValueError: with fewer than two samples.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        centre = self.sum / self.count
        return (self.outer - self.count * torch.outer(centre, centre)) / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Frechet distance of two Gaussians with these means and covariances; 0 for equal statistics.

    Raises:
        ValueError: the features have different widths.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and of {len(b.mean)} dimensions are of two networks")
    covariance_a, covariance_b = a.covariance, b.covariance
    root = _root(covariance_a)
    middle = root.T @ covariance_b @ root
    cross = torch.linalg.eigvalsh((middle + middle.T) / 2).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross
    return max(float(distance), 0.0)


def _root(matrix: Tensor) -> Tensor:
    """R (D, D) with R R^T the positive semidefinite matrix: its triangle, or of a singular one A^1/2."""
    triangle, failed = torch.linalg.cholesky_ex(matrix)
    if not failed:
        return triangle
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt()
