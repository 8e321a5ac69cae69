"""Shard jobs that sort the rows that stay by their keys, each split apart, into files of about equal length.

First each file of the list leaves its rows in pieces in the order of their keys, then each range of keys is
gathered from all pieces. A file that is written holds the keys of one of some equal ranges: it depends on
which rows there are, and not on their order in the list. Parts of the list are laid out one after the other,
so that what comes later adds files and changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.dag.shard_records import read_done
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.storage import Folder, open_folder
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.judge import identities
from pipelines.urls.listing import Listing
from reptok.data import columns
from reptok.data.index import SPLITS
from reptok.data.keys import key_of, split_of

ROWS_AT_ONCE = 1 << 19
"""Rows that are sorted at a time."""
ROWS_PER_GROUP = 1 << 14
READERS = 16


@dataclass(frozen=True, kw_only=True)
class SortRows(ShardJob):
    """Leaves the rows of one file that stay in pieces `{split}-{file}-{number}.parquet`, by their keys.

    The payload is the file's, with "begin", the row of the list with which it begins, and "rows". What is
    counted in is the file; the stats hold "placed_{split}", the rows that have a place, opted-out ones too.

    Attributes:
        listing: where rows come from.
        identity: columns that make a row's key.
        val_fraction: expected share for validation of rows whose split the list does not tell.
        bits: URL of the folder with the files "alive" and "placed", of which `scan.Scan` tells.
        total: rows of the list.
        schema: columns and types of all files: the first one's.
    """

    listing: Listing
    identity: tuple[str, ...]
    val_fraction: float
    bits: str
    total: int
    schema: pa.Schema
    _bits: dict[str, Bits] = field(default_factory=dict, init=False, repr=False)

    def setup(self) -> None:
        """Read which rows stay."""
        folder = open_folder(self.bits)
        for name in ("alive", "placed"):
            self._bits[name] = Bits(folder.read_bytes(name), self.total)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        stats = {"rows_in": 1.0, "rows_out": 1.0, **{f"placed_{split}": 0.0 for split in SPLITS}}
        waiting: list[pa.Table] = []
        number = 0
        for rows, alive in self._placed(shard):
            for split in SPLITS:
                stats[f"placed_{split}"] += pc.sum(pc.equal(rows["split"], split)).as_py() or 0
            waiting.append(rows.filter(pa.array(alive)))
            if sum(table.num_rows for table in waiting) >= ROWS_AT_ONCE:
                self._write(out, f"{shard.index:05d}-{number:03d}", waiting)
                waiting, number = [], number + 1
        self._write(out, f"{shard.index:05d}-{number:03d}", waiting)
        return stats

    def _placed(self, shard: Shard) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """The rows that have a place, with key and split, and which of them stay."""
        begin, read = shard.payload["begin"], 0
        for table in self.listing.tables(shard.payload, None):
            start, stop = begin + read, begin + read + table.num_rows
            read += table.num_rows
            if read > shard.payload["rows"]:
                break
            placed, alive = (self._bits[name].slice(start, stop) for name in ("placed", "alive"))
            table = table.filter(pa.array(placed))
            rows = self._alike(table, shard.name)
            keys = [key_of(text) for text in identities(rows.select(list(self.identity))).to_pylist()]
            pictures = keys
            if self.identity != ("url",):
                pictures = [key_of(text) for text in identities(rows.select(["url"])).to_pylist()]
            rows = rows.select([name for name in rows.column_names if name not in ("key", "split")])
            told = table["split"].to_pylist() if "split" in table.column_names else []
            splits = self._splits(pictures, told, shard.name)
            rows = rows.append_column("key", pa.array(keys, pa.string()))
            yield rows.append_column("split", pa.array(splits, pa.string())), alive[placed]
        if read != shard.payload["rows"]:
            raise ValueError(
                f"{shard.name} had {shard.payload['rows']} rows when it was judged and {read} or more later; "
                "run again when nobody writes to it"
            )

    def _splits(self, keys: Sequence[str], told: Sequence[str | None], name: str) -> list[str]:
        if odd := {split for split in told if split} - set(SPLITS):
            raise ValueError(f"{name} has split {sorted(odd)[0]!r}; a split is one of {', '.join(SPLITS)}")
        drawn = [split_of(key, self.val_fraction) for key in keys]  # of URLs: texts of one stay together
        return [own or other for own, other in zip(told or [None] * len(keys), drawn, strict=True)]

    def _write(self, out: Workspace, name: str, tables: Sequence[pa.Table]) -> None:
        if not tables:
            return
        rows = pa.concat_tables(tables).sort_by("key")
        for split in SPLITS:
            mine = rows.filter(pc.equal(rows["split"], split))
            if mine.num_rows:
                with out.create(f"{split}-{name}.parquet") as file:
                    target: Any = file
                    pq.write_table(
                        mine, target, row_group_size=ROWS_PER_GROUP, compression="zstd",
                        write_statistics=["key"],  # every file of the result reads every footer
                    )  # fmt: skip

    def _alike(self, table: pa.Table, source: str) -> pa.Table:
        try:
            return table.select(self.schema.names).cast(self.schema)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{source} has other columns than the files before it: {error}") from error


@dataclass(frozen=True, kw_only=True)
class WriteUrls(ShardJob):
    """Writes the files of some ranges of keys that follow each other.

    The payload: "split"; "pieces", where their rows may be; "ranges", how many there are; "first" and "end",
    those that are written, and "number" of the first file. What is counted in is the shard; the stats hold
    "rows".

    Attributes:
        pieces: URL of the folder of pieces.
        schema: columns and types of rows where a range has none.
    """

    pieces: str
    schema: pa.Schema

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        plan = shard.payload
        bounds = [_bound(number, plan["ranges"]) for number in range(plan["first"], plan["end"] + 1)]
        rows = self._between(plan["pieces"], bounds[0], bounds[-1])
        cuts = np.searchsorted(np.asarray(rows["key"].to_numpy(), str), np.array(bounds))
        for place, (start, stop) in enumerate(pairwise(cuts.tolist())):
            found = rows.slice(start, stop - start)
            values: Any = {name: found.column(name) for name in found.column_names}
            with out.create(urls_file(plan["split"], plan["number"] + place)) as file:
                target: Any = file
                columns.write_table(target, values, columns.URLS)
        return {"rows_in": 1, "rows_out": 1, "rows": rows.num_rows}

    def _between(self, names: Sequence[str], low: str, high: str) -> pa.Table:
        """All rows whose keys are in [low, high), in their order."""
        folder = open_folder(self.pieces)
        own = pa.schema([field for field in self.schema if field.name not in ("key", "split")])
        schema = own.append(pa.field("key", pa.string())).append(pa.field("split", pa.string()))
        with ThreadPoolExecutor(READERS) as readers:
            found = list(readers.map(lambda name: _read(folder, name, low, high), names))
        return pa.concat_tables([schema.empty_table(), *found]).sort_by("key")


def _read(folder: Folder, name: str, low: str, high: str) -> pa.Table:
    """Those rows of a piece; of its row groups those are read whose keys may be there."""
    with folder.open(name) as source:
        file = pq.ParquetFile(source)
        column = file.schema_arrow.names.index("key")
        groups = []
        for number in range(file.metadata.num_row_groups):
            keys = file.metadata.row_group(number).column(column).statistics
            if keys.min < high and keys.max >= low:
                groups.append(number)
        rows = file.read_row_groups(groups)
    return rows.filter(pc.and_(pc.greater_equal(rows["key"], low), pc.less(rows["key"], high)))


def _bound(number: int, ranges: int) -> str:
    """The smallest key of a range, or what is more than every key behind the last one."""
    return f"{-(-(number << 64) // ranges):016x}" if number < ranges else "g"


def urls_file(split: str, number: int) -> str:
    """Name of a file of rows."""
    return f"urls-{split}-{number:05d}.parquet"


def sort_shards(files: Sequence[Shard], rows: Sequence[int]) -> list[Shard]:
    """One shard for each file of the list."""
    begins = np.cumsum([0, *rows]).tolist()
    return [
        Shard(file.index, file.name, 1, {**file.payload, "begin": begin, "rows": count})
        for file, begin, count in zip(files, begins, rows, strict=False)
    ]


def write_shards(
    parts: Sequence[Sequence[Shard]], sorted_rows: Workspace, rows_per_shard: int
) -> list[Shard]:
    """Shards of `WriteUrls`, from what `SortRows` has done.

    Args:
        parts: the shards of `SortRows` for each part of the list.
        sorted_rows: where they were done.
        rows_per_shard: rows that a file has on average, at most.
    """
    shards: list[Shard] = []
    numbers = dict.fromkeys(SPLITS, 0)
    for files in parts:
        done = read_done(files, sorted_rows)
        for split in SPLITS:
            placed = sum(int(done[file.index]["stats"][f"placed_{split}"]) for file in files)
            ranges = -(-placed // rows_per_shard)
            pieces = sorted(n for f in files for n in done[f.index]["files"] if n.startswith(f"{split}-"))
            step = max(1, ROWS_AT_ONCE // rows_per_shard)
            for first in range(0, ranges, step):
                end = min(first + step, ranges)
                payload: dict[str, Any] = {
                    "split": split, "pieces": pieces, "ranges": ranges, "first": first, "end": end,
                    "number": numbers[split] + first,
                }  # fmt: skip
                name = urls_file(split, payload["number"]).removesuffix(".parquet")
                shards.append(Shard(len(shards), name, 1, payload))
            numbers[split] += ranges
    return shards
