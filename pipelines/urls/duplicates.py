"""Equal and nearly equal 64-bit hashes.

"Nearly equal" means a small Hamming distance. Two hashes that differ in at most d bits agree in at least k of
d + k blocks of bits (Manku et al., "Detecting near-duplicates for web crawling", 2007): for every choice of k
blocks the hashes are sorted by these, and neighbours are compared. Only different hashes are: a hash that a
million rows have is one.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from pipelines.urls.hashes import EVERY_BIT, FIRSTS

AGREEING_BLOCKS = 3
MAX_DISTANCE = 6


def repeated(hashes: np.ndarray, rows: np.ndarray, living: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are left although an earlier row that is left has their hash; linear but for one sort.

    Args:
        hashes: uint64 (N,).
        rows: int64 (N,), those that have them, ascending.
        living: bool (N,), which of them are left.

    Returns:
        Rows int64 (M,), and the different hashes as `FIRSTS` (K,), ascending.
    """
    order = np.argsort(hashes, kind="stable")  # rows ascend, so the first of equals stays in front
    hashes, rows, living = hashes[order], rows[order], living[order]
    first = _first(hashes)
    firsts = np.empty(int(first.sum()), FIRSTS)
    firsts["hash"], firsts["row"], firsts["living"] = hashes[first], rows[first], -1
    hashes, rows = hashes[living], rows[living]
    first = _first(hashes)
    firsts["living"][np.searchsorted(firsts["hash"], hashes[first])] = rows[first]
    return rows[~first], firsts


def near(firsts: np.ndarray, mask: np.uint64, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """First rows within a Hamming distance of an earlier one, among hashes that agree in a mask's bits.

    The earlier row may itself be such a row.

    Args:
        firsts: different hashes, `FIRSTS` (N,).
        mask: hashes are compared if they agree in these bits.
        distance: in bits.

    Returns:
        Rows int64 (M,), all rows counting, and rows int64 (K,), those that are left counting.
    """
    keys = firsts["hash"] & mask
    order = np.lexsort((firsts["row"], keys))
    keys, values = keys[order], firsts["hash"][order]
    rows, living = firsts["row"][order], firsts["living"][order]
    found, lost = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    first, step = np.arange(len(rows)), 1
    while len(first):
        first = first[first + step < len(rows)]
        first = first[keys[first] == keys[first + step]]
        a = first[np.bitwise_count(values[first] ^ values[first + step]) <= distance]
        b = a + step
        found[b] = True
        later = np.where(living[a] > living[b], a, b)
        lost[later[(living[a] >= 0) & (living[b] >= 0)]] = True
        step += 1
    return rows[found], living[lost]


def masks(distance: int) -> list[np.uint64]:
    """One mask of bits for every choice of blocks that may be the agreeing ones."""
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"a Hamming distance must be between 0 and {MAX_DISTANCE}, not {distance}")
    if not distance:
        return [EVERY_BIT]
    bounds = np.linspace(0, 64, distance + AGREEING_BLOCKS + 1).round().astype(int)
    blocks = [((1 << int(b)) - 1) ^ ((1 << int(a)) - 1) for a, b in pairwise(bounds)]
    return [np.uint64(sum(choice)) for choice in combinations(blocks, AGREEING_BLOCKS)]


class Neighbours:
    """Finds hashes within a Hamming distance of some known ones, which fit into memory.

    Args:
        known: uint64 (N,).
        distance: at most `MAX_DISTANCE`.

    Attributes:
        distance: likewise.
    """

    def __init__(self, known: np.ndarray, distance: int) -> None:
        self.distance = distance
        self._tables = []
        for mask in masks(distance):
            order = np.argsort(known & mask)
            self._tables.append((mask, (known & mask)[order], known[order]))

    def __call__(self, hashes: np.ndarray) -> np.ndarray:
        """Bool (N,): which of uint64 (N,) are near a known one."""
        found = np.zeros(len(hashes), bool)
        for mask, keys, known in self._tables:
            left = np.searchsorted(keys, hashes & mask, "left")
            right = np.searchsorted(keys, hashes & mask, "right")
            asking = np.flatnonzero(left < right)
            place = left[asking]
            while len(asking):
                close = np.bitwise_count(known[place] ^ hashes[asking]) <= self.distance
                found[asking[close]] = True
                place = place + 1
                more = place < right[asking]
                asking, place = asking[more], place[more]
        return found


def _first(ordered: np.ndarray) -> np.ndarray:
    """Bool (N,): where another value begins in ordered values (N,)."""
    begins = np.ones(len(ordered), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    return begins
