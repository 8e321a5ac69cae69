"""A growing row of truth values, one bit each: 12.5 MB for 100 million."""

from __future__ import annotations

import numpy as np


class Bits:
    """Bits by position."""

    def __init__(self) -> None:
        self._bytes = np.zeros(0, np.uint8)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, values: np.ndarray) -> None:
        """Append bool (N,)."""
        end = self._count + len(values)
        needed = (end + 7) // 8
        if needed > len(self._bytes):
            room = max(needed, 2 * len(self._bytes)) - len(self._bytes)
            self._bytes = np.concatenate([self._bytes, np.zeros(room, np.uint8)])
        self._count = end
        self.set(np.flatnonzero(values) + end - len(values))

    def set(self, positions: np.ndarray) -> None:
        """Make them true."""
        np.bitwise_or.at(self._bytes, positions >> 3, _bit(positions))

    def subtract(self, other: Bits) -> None:
        """Make false what is true in bits of the same length."""
        size = (self._count + 7) // 8
        self._bytes[:size] &= ~other._bytes[:size]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Bool (N,): the values at int64 (N,) positions."""
        return (self._bytes[positions >> 3] & _bit(positions)) != 0

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Bool (stop - start,)."""
        return self.at(np.arange(start, stop))

    def total(self) -> int:
        """How many are true."""
        return int(np.bitwise_count(self._bytes).sum())


def _bit(positions: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint8(1), (positions & 7).astype(np.uint8))
