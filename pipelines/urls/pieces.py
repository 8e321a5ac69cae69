"""Pieces: the rows of one file of a list, in the order of their keys and cut into ranges of keys.

As many ranges as there will be shards of the result, so that each of these opens the pieces of about its own
range: all together open every piece about once, however many files and shards there are.

{split}-{file}-{range}-{ranges}.parquet
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dag.storage import Folder, open_folder
from pipelines.dag.workspace import Workspace

ROWS_AT_ONCE = 1 << 19
"""Rows that are sorted at a time, and of a range."""
READERS = 16


class Runs:
    """Rows that do not fit into memory: sorted runs, on this machine's disk but for the last one.

    Args:
        folder: where there is room for them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._runs = folder, list[pa.Table]()
        self._waiting, self.rows = list[pa.Table](), 0

    def add(self, rows: pa.Table) -> None:
        """Add rows in any order, with a column `key`."""
        self._waiting.append(rows)
        self.rows += rows.num_rows
        if sum(table.num_rows for table in self._waiting) >= ROWS_AT_ONCE:
            path = self._folder / f"{len(self._runs)}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(self._sorted())
            self._runs.append(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def ranges(self, count: int) -> Iterator[pa.Table]:
        """All rows, in the order of their keys, by equal ranges of keys."""
        runs = [*self._runs, *([self._sorted()] if self._waiting else [])]
        bounds = np.array([bound(number, count) for number in range(count + 1)])
        cuts = [np.searchsorted(np.asarray(run["key"].to_numpy(), str), bounds).tolist() for run in runs]
        for number in range(count):
            parts = [
                run.slice(cut[number], cut[number + 1] - cut[number])
                for run, cut in zip(runs, cuts, strict=True)
            ]
            found = pa.concat_tables(parts)
            yield found.sort_by("key") if len(parts) > 1 else found

    def _sorted(self) -> pa.Table:
        rows, self._waiting = pa.concat_tables(self._waiting).sort_by("key"), []
        return rows


def write_pieces(runs: Runs, split: str, file: int, expected: float, out: Workspace) -> None:
    """Write the pieces of a file's rows of a split; `expected` rows has the split in all files together."""
    if not runs.rows:
        return
    count = max(1, round(expected / ROWS_AT_ONCE))
    for number, rows in enumerate(runs.ranges(count)):
        if rows.num_rows:
            with out.create(f"{split}-{file:05d}-{number:05d}-{count:05d}.parquet") as target:
                opened: Any = target
                pq.write_table(rows, opened, compression="zstd")


def write_list(name: str, pieces: Sequence[str], out: Workspace) -> None:
    """Write a list of pieces, for `between`."""
    out.folder.write_bytes(name, json.dumps(pieces).encode())


def between(url: str, name: str, low: str, high: str) -> list[pa.Table]:
    """The rows whose keys are in [low, high) of the pieces in a list, in a folder."""
    folder = open_folder(url)
    found = [piece.name for piece in _listed(url, name) if piece.low < high and low < piece.high]
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda piece: _read(folder, piece, low, high), found))


def bound(number: int, ranges: int) -> str:
    """The smallest key of a range, or what is more than every key behind the last one."""
    return f"{-(-(number << 64) // ranges):016x}" if number < ranges else "g"


@dataclass(frozen=True)
class _Piece:
    name: str
    low: str
    high: str


@lru_cache(4)
def _listed(url: str, name: str) -> tuple[_Piece, ...]:
    names = json.loads(open_folder(url).read_bytes(name))
    parts = [(piece, *map(int, piece.removesuffix(".parquet").split("-")[-2:])) for piece in names]
    return tuple(
        _Piece(piece, *(bound(edge, count) for edge in (number, number + 1)))
        for piece, number, count in parts
    )


def _read(folder: Folder, name: str, low: str, high: str) -> pa.Table:
    with folder.open(name) as source:
        rows = pq.ParquetFile(source).read()
    return rows.filter(pc.and_(pc.greater_equal(rows["key"], low), pc.less(rows["key"], high)))
