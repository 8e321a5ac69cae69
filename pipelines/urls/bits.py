"""A growing row of truth values, one bit each: 12.5 MB for 100 million."""

from __future__ import annotations

import numpy as np


class Bits:
    """Bits by position.

    Args:
        packed: what `packed` gave, to go on with.
        count: how many bits it holds.
    """

    def __init__(self, packed: bytes = b"", count: int = 0) -> None:
        self._bytes = np.frombuffer(packed, np.uint8).copy()
        self._count = count

    @staticmethod
    def zeros(count: int) -> Bits:
        """So many, all of them false."""
        return Bits(bytes((count + 7) // 8), count)

    def __len__(self) -> int:
        return self._count

    def packed(self) -> bytes:
        """Eight to a byte, the first one lowest."""
        return self._bytes[: (self._count + 7) // 8].tobytes()

    def extend(self, values: np.ndarray) -> None:
        """Append bool (N,)."""
        start, end = self._count, self._count + len(values)
        needed = (end + 7) // 8
        if needed > len(self._bytes):
            room = max(needed, 2 * len(self._bytes)) - len(self._bytes)
            self._bytes = np.concatenate([self._bytes, np.zeros(room, np.uint8)])
        self._count = end
        head = min(-start % 8, len(values))  # up to the next whole byte
        self.set(np.flatnonzero(values[:head]) + start)
        if head < len(values):
            self._bytes[(start + head) // 8 : needed] |= np.packbits(values[head:], bitorder="little")

    def set(self, positions: np.ndarray) -> None:
        """Make them true."""
        np.bitwise_or.at(self._bytes, positions >> 3, _bit(positions))

    def subtract(self, other: Bits) -> None:
        """Make false what is true in bits of the same length."""
        size = (self._count + 7) // 8
        self._bytes[:size] &= ~other._bytes[:size]

    def add(self, other: Bits) -> None:
        """Make true what is true in bits of the same length."""
        size = (self._count + 7) // 8
        self._bytes[:size] |= other._bytes[:size]

    def at(self, positions: np.ndarray) -> np.ndarray:
        """Bool (N,): the values at int64 (N,) positions."""
        return (self._bytes[positions >> 3] & _bit(positions)) != 0

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Bool (stop - start,)."""
        whole = np.unpackbits(self._bytes[start >> 3 : (stop + 7) >> 3], bitorder="little")
        return whole[start & 7 :][: stop - start].astype(bool)

    def total(self) -> int:
        """How many are true."""
        return int(np.bitwise_count(self._bytes).sum())


def _bit(positions: np.ndarray) -> np.ndarray:
    return np.left_shift(np.uint8(1), (positions & 7).astype(np.uint8))
