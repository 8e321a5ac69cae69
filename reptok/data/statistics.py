"""Mean and standard deviation of a stream of vectors, mergeable in any grouping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class RunningMoments:
    """Count, sum and sum of squares per dimension, in float64.

    Attributes:
        count: Vectors seen.
        total: Their sum, (D,).
        squares: The sum of their squares, (D,).
    """

    count: int
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> RunningMoments:
        """Return the moments of no vectors of `dim` dimensions."""
        return cls(0, np.zeros(dim), np.zeros(dim))

    def update(self, vectors: np.ndarray) -> None:
        """Add vectors (..., D)."""
        flat = vectors.reshape(-1, vectors.shape[-1]).astype(np.float64)
        self.merge(RunningMoments(len(flat), flat.sum(0), np.square(flat).sum(0)))

    def merge(self, other: RunningMoments) -> None:
        """Add the vectors that `other` has seen."""
        self.count += other.count
        self.total = self.total + other.total
        self.squares = self.squares + other.squares

    @property
    def mean(self) -> np.ndarray:
        """Mean per dimension, float64 (D,)."""
        return np.asarray(self.total / self.count)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation per dimension, float64 (D,)."""
        variance = self.squares / self.count - np.square(self.mean)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))
