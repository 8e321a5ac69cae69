"""Hashes of rows on storage, divided so that those which may be alike share a part.

A piece is one file: the offsets of its parts, then its entries part by part. Who looks for equal hashes reads
the same part of every piece, so that memory holds few million entries however long the list is.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipelines.dag.storage import Folder
from pipelines.dag.workspace import Workspace

PARTS = 256
ROWS_AT_ONCE = 1 << 20
"""Entries of one piece, and about those that are compared at a time, as long as a part has no more."""

EVERY_BIT = np.uint64(2**64 - 1)
HASHED = np.dtype([("hash", "<u8"), ("row", "<u4")])
"""A hash and the row, counted within its file, that has it."""
FIRSTS = np.dtype([("hash", "<u8"), ("row", "<i8"), ("living", "<i8")])
"""A hash, the first row of the list that has it, and the first such row that is left (-1 for none)."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
_HEAD = np.dtype("<i8")
_HEAD_BYTES = (PARTS + 1) * _HEAD.itemsize
_READERS = 16


class PieceWriter:
    """Collects a file's hashes and writes them in pieces `{name}-000`, `{name}-001`, ...

    Args:
        out: where to.
        name: what the pieces are called.
    """

    def __init__(self, out: Workspace, name: str) -> None:
        self._out, self._name = out, name
        self._waiting: list[np.ndarray] = []
        self._rows = self._pieces = 0

    def add(self, hashes: np.ndarray, rows: np.ndarray) -> None:
        """Append uint64 (N,) with their (N,) rows, which ascend from call to call."""
        entries = np.empty(len(hashes), HASHED)
        entries["hash"], entries["row"] = hashes, rows
        self._waiting.append(entries)
        self._rows += len(entries)
        if self._rows >= ROWS_AT_ONCE:
            self.close()

    def close(self) -> None:
        """Write what waits."""
        if self._rows:
            write_piece(self._out, f"{self._name}-{self._pieces:03d}", np.concatenate(self._waiting))
            self._waiting, self._rows = [], 0
            self._pieces += 1


def write_piece(out: Workspace, name: str, entries: np.ndarray, mask: np.uint64 = EVERY_BIT) -> None:
    """Write entries as a piece.

    Args:
        out: where to.
        name: of the file.
        entries: with a field "hash"; within a part they keep their order.
        mask: hashes that agree in these bits share a part.
    """
    parts = (((entries["hash"] & mask) * _MIX) >> np.uint64(56)).astype(np.uint8)
    offsets = np.zeros(PARTS + 1, _HEAD)
    np.cumsum(np.bincount(parts, minlength=PARTS), out=offsets[1:])
    with out.create(name) as file:
        file.write(offsets.tobytes())
        file.write(entries[np.argsort(parts, kind="stable")].tobytes())


class Pieces:
    """Pieces to be read part by part.

    Args:
        folder: where they lie.
        names: their files.
        kind: what an entry is, such as `HASHED`.
    """

    def __init__(self, folder: Folder, names: Sequence[str], kind: np.dtype) -> None:
        self._folder, self._names, self._kind = folder, names, kind
        with ThreadPoolExecutor(_READERS) as readers:
            heads = list(readers.map(lambda name: folder.read_range(name, 0, _HEAD_BYTES), names))
        self._offsets = np.frombuffer(b"".join(heads), _HEAD).reshape(len(names), PARTS + 1)

    def groups(self) -> list[tuple[int, int]]:
        """Ranges of parts that hold about `ROWS_AT_ONCE` entries each; at least one."""
        groups, start, rows = [], 0, 0
        for part, count in enumerate(np.diff(self._offsets, axis=1).sum(0).tolist()):
            if part > start and rows + count > ROWS_AT_ONCE:
                groups.append((start, part))
                start, rows = part, 0
            rows += count
        return [*groups, (start, PARTS)]

    def read(self, start: int, stop: int) -> list[np.ndarray]:
        """Entries of the parts from `start` to before `stop`, of one piece after the other."""

        def of(piece: int) -> np.ndarray:
            first, last = self._offsets[piece, [start, stop]].tolist()
            size = self._kind.itemsize
            data = self._folder.read_range(
                self._names[piece], _HEAD_BYTES + first * size, _HEAD_BYTES + last * size
            )
            return np.frombuffer(data, self._kind)

        with ThreadPoolExecutor(_READERS) as readers:
            return list(readers.map(of, range(len(self._names))))
