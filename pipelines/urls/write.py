"""Shard jobs that sort the rows that stay by their keys, each split apart, into files of about equal length.

First each file of the list leaves its rows in pieces by ranges of keys (see `pieces`), then each range is
gathered from the pieces that have some of it. A file that is written holds the keys of one of some equal
ranges: it depends on which rows there are, and not on their order in the list. Parts of the list are laid out
one after the other, so that what comes later adds files and changes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dag.shard_records import read_done
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.judge import identities
from pipelines.urls.listing import Listing
from pipelines.urls.pieces import ROWS_AT_ONCE, Runs, between, bound, write_list, write_pieces
from reptok.data import columns
from reptok.data.index import SPLITS
from reptok.data.keys import key_of, split_of


@dataclass(frozen=True, kw_only=True)
class SortRows(ShardJob):
    """Leaves the rows of one file that stay in pieces, by their keys.

    The payload is the file's, with "begin", the row of the list with which it begins, "rows", and "placed",
    the rows of its part that have a place. What is counted in is the file; the stats hold "placed_{split}",
    the rows that have a place, opted-out ones too.

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
        with ExitStack() as spools:
            runs = {split: Runs(Path(spools.enter_context(TemporaryDirectory()))) for split in SPLITS}
            for rows, alive in self._placed(shard):
                staying = rows.filter(pa.array(alive))
                for split in SPLITS:
                    stats[f"placed_{split}"] += pc.sum(pc.equal(rows["split"], split)).as_py() or 0
                    runs[split].add(staying.filter(pc.equal(staying["split"], split)))
            own = sum(stats[f"placed_{split}"] for split in SPLITS)
            for split in SPLITS:
                expected = shard.payload["placed"] * stats[f"placed_{split}"] / max(1.0, own)
                write_pieces(runs[split], split, shard.index, expected, out)
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

    def _alike(self, table: pa.Table, source: str) -> pa.Table:
        try:
            return table.select(self.schema.names).cast(self.schema)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{source} has other columns than the files before it: {error}") from error


@dataclass(frozen=True, kw_only=True)
class WriteUrls(ShardJob):
    """Writes the files of some ranges of keys that follow each other.

    The payload: "split"; "pieces", the list of those of its part; "ranges", how many there are; "first" and
    "end", those that are written, and "number" of the first file. What is counted in is the shard; the stats
    hold "rows".

    Attributes:
        pieces: URL of the folder of pieces.
        schema: columns and types of rows where a range has none.
    """

    pieces: str
    schema: pa.Schema

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        plan = shard.payload
        bounds = [bound(number, plan["ranges"]) for number in range(plan["first"], plan["end"] + 1)]
        rows = self._between(plan["pieces"], bounds[0], bounds[-1])
        cuts = np.searchsorted(np.asarray(rows["key"].to_numpy(), str), np.array(bounds))
        for place, (start, stop) in enumerate(pairwise(cuts.tolist())):
            found = rows.slice(start, stop - start)
            values: Any = {name: found.column(name) for name in found.column_names}
            with out.create(urls_file(plan["split"], plan["number"] + place)) as file:
                target: Any = file
                columns.write_table(target, values, columns.URLS)
        return {"rows_in": 1, "rows_out": 1, "rows": rows.num_rows}

    def _between(self, pieces: str, low: str, high: str) -> pa.Table:
        """All rows whose keys are in [low, high), in their order."""
        own = pa.schema([field for field in self.schema if field.name not in ("key", "split")])
        schema = own.append(pa.field("key", pa.string())).append(pa.field("split", pa.string()))
        return pa.concat_tables([schema.empty_table(), *between(self.pieces, pieces, low, high)]).sort_by(
            "key"
        )


def urls_file(split: str, number: int) -> str:
    """Name of a file of rows."""
    return f"urls-{split}-{number:05d}.parquet"


def sort_shards(parts: Sequence[Sequence[Shard]], rows: Sequence[int], placed: Bits) -> list[list[Shard]]:
    """One shard for each file of the list, by its parts.

    Args:
        parts: the files.
        rows: of each file.
        placed: rows of the list that have a place.
    """
    laid_out, begin, counts = [], 0, iter(rows)
    for files in parts:
        own = [(begin + start, count) for start, count in _starts([next(counts) for _ in files])]
        begin += sum(count for _, count in own)
        total = sum(int(placed.slice(start, start + count).sum()) for start, count in own)
        laid_out.append(
            [
                Shard(
                    file.index, file.name, 1,
                    {**file.payload, "begin": start, "rows": count, "placed": total},
                )
                for file, (start, count) in zip(files, own, strict=True)
            ]
        )  # fmt: skip
    return laid_out


def _starts(counts: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(np.cumsum([0, *counts]).tolist(), counts, strict=False))


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
    for part, files in enumerate(parts):
        done = read_done(files, sorted_rows)
        for split in SPLITS:
            placed = sum(int(done[file.index]["stats"][f"placed_{split}"]) for file in files)
            ranges = -(-placed // rows_per_shard)
            pieces = sorted(n for f in files for n in done[f.index]["files"] if n.startswith(f"{split}-"))
            listed = f"pieces-{part}-{split}.json"
            write_list(listed, pieces, sorted_rows)
            step = max(1, ROWS_AT_ONCE // rows_per_shard)
            for first in range(0, ranges, step):
                end = min(first + step, ranges)
                payload: dict[str, Any] = {
                    "split": split, "pieces": listed, "ranges": ranges, "first": first, "end": end,
                    "number": numbers[split] + first,
                }  # fmt: skip
                name = urls_file(split, payload["number"]).removesuffix(".parquet")
                shards.append(Shard(len(shards), name, 1, payload))
            numbers[split] += ranges
    return shards
