"""Equal and nearly equal 64-bit hashes among more rows than memory holds.

The hashes lie on disk, parted so that those which may be alike share a part: memory holds one part at a time,
the disk 16 bytes per row. "Nearly equal" means a small Hamming distance. Two hashes that differ in at most d
bits agree in at least k of d + k blocks of bits (Manku et al., "Detecting near-duplicates for web crawling",
2007): for every choice of k blocks the rows are sorted by these, and neighbours are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np

from pipelines.urls.bits import Bits

BYTES_PER_ROW = 16
PART_BITS = 8
PARTS = 1 << PART_BITS
AGREEING_BLOCKS = 3
MAX_DISTANCE = 6
WAITING_ROWS = 1 << 18
EVERY_BIT = np.uint64(2**64 - 1)

_ENTRY = np.dtype([("hash", "<u8"), ("row", "<i8")])
_MIX = np.uint64(0x9E3779B97F4A7C15)


class HashesOnDisk:
    """Hashes with their row numbers, in parts.

    Args:
        folder: an empty folder of its own, or one that does not exist.
        mask: hashes that agree in these bits share a part.
    """

    def __init__(self, folder: Path, mask: np.uint64 = EVERY_BIT) -> None:
        self._folder, self._mask = folder, mask
        self._waiting: list[np.ndarray] = []
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, hashes: np.ndarray, rows: np.ndarray) -> None:
        """Append uint64 (N,) with their int64 (N,) rows, which ascend from call to call."""
        entries = np.empty(len(hashes), _ENTRY)
        entries["hash"], entries["row"] = hashes, rows
        self._waiting.append(entries)
        self._count += len(entries)
        if self._count >= WAITING_ROWS:
            self._flush()

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Hashes and rows of one part after another, rows ascending in each."""
        self._flush()
        for number in range(PARTS):
            path = self._path(number)
            if path.exists():
                entries = np.fromfile(path, _ENTRY)
                yield entries["hash"], entries["row"]

    def remove(self) -> None:
        """Give the disk back."""
        for number in range(PARTS):
            self._path(number).unlink(missing_ok=True)
        self._folder.rmdir()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:03d}"

    def _flush(self) -> None:
        if not self._waiting:
            return
        entries = np.concatenate(self._waiting)
        self._waiting, self._count = [], 0
        parts = ((entries["hash"] & self._mask) * _MIX) >> np.uint64(64 - PART_BITS)
        order = np.argsort(parts, kind="stable")
        bounds = np.searchsorted(parts[order], np.arange(PARTS + 1))
        for number in range(PARTS):
            part = entries[order[bounds[number] : bounds[number + 1]]]
            if len(part):
                with self._path(number).open("ab") as file:
                    part.tofile(file)


def repeated(hashes: HashesOnDisk, alive: Bits | None = None) -> Iterator[np.ndarray]:
    """Rows whose hash an earlier row has; with `alive`, among the rows whose bit is true."""
    for values, rows in hashes.parts():
        values, rows = _living(values, rows, alive)
        order = np.argsort(values, kind="stable")  # rows ascend, so the first of equals stays in front
        ordered = values[order]
        yield rows[order][1:][ordered[1:] == ordered[:-1]]


def near(
    hashes: HashesOnDisk, distance: int, folder: Path, alive: Bits | None = None
) -> Iterator[np.ndarray]:
    """Rows within a Hamming distance of an earlier row, which may itself be such a row; some come repeatedly.

    Args:
        hashes: of all rows.
        distance: at most `MAX_DISTANCE`.
        folder: where the hashes are sorted in other ways meanwhile.
        alive: rows that count; all by default.
    """
    for mask in masks(distance):
        keyed = HashesOnDisk(folder, mask)
        for values, rows in hashes.parts():
            keyed.add(*_living(values, rows, alive))
        for values, rows in keyed.parts():
            yield _near_in_part(values, rows, mask, distance)
        keyed.remove()


def masks(distance: int) -> list[np.uint64]:
    """One mask of bits for every choice of blocks that may be the agreeing ones."""
    if not 0 <= distance <= MAX_DISTANCE:
        raise ValueError(f"a Hamming distance must be between 0 and {MAX_DISTANCE}, not {distance}")
    bounds = np.linspace(0, 64, distance + AGREEING_BLOCKS + 1).round().astype(int)
    blocks = [((1 << int(b)) - 1) ^ ((1 << int(a)) - 1) for a, b in pairwise(bounds)]
    chosen = [sum(choice) for choice in combinations(blocks, AGREEING_BLOCKS)] if distance else [2**64 - 1]
    return [np.uint64(mask) for mask in chosen]


def _near_in_part(values: np.ndarray, rows: np.ndarray, mask: np.uint64, distance: int) -> np.ndarray:
    keys = values & mask
    order = np.lexsort((rows, keys))
    keys, values, rows = keys[order], values[order], rows[order]
    found = np.zeros(len(rows), bool)
    first, step = np.arange(len(rows)), 1
    while len(first):
        first = first[first + step < len(rows)]
        first = first[keys[first] == keys[first + step]]
        close = np.bitwise_count(values[first] ^ values[first + step]) <= distance
        found[first[close] + step] = True
        step += 1
    return rows[found]


def _living(values: np.ndarray, rows: np.ndarray, alive: Bits | None) -> tuple[np.ndarray, np.ndarray]:
    if alive is None:
        return values, rows
    living = alive.at(rows)
    return values[living], rows[living]


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
