"""A shard job that writes the rows that stay, numbered, into files of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.listing import Listing
from pipelines.urls.scan import Scan
from reptok.data import columns

KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class WriteUrls(ShardJob):
    """Writes every `urls-{number}.parquet` that begins in a file of the list.

    The payload: "file", where to begin; "skip", rows that stay there and belong to the number before;
    "numbers", the first and one after the last number.

    Attributes:
        listing: where rows come from.
        files: all files of the list.
        rows: of each.
        alive: URL of the folder, and name of the file of bits that say which rows stay.
        schema: columns and types of all files: the first one's.
        rows_per_shard: rows of each file that is written, but for the last.
    """

    listing: Listing
    files: Sequence[Shard]
    rows: Sequence[int]
    alive: tuple[str, str]
    schema: pa.Schema
    rows_per_shard: int
    _alive: list[Bits] = field(default_factory=list, init=False, repr=False)

    def setup(self) -> None:
        """Read which rows stay."""
        url, name = self.alive
        self._alive[:] = [Bits(open_folder(url).read_bytes(name), sum(self.rows))]

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        first, end = shard.payload["numbers"]
        skip, written = shard.payload["skip"], 0
        waiting = self.schema.empty_table()
        for table in self._staying(shard.payload["file"]):
            waiting = pa.concat_tables([waiting, table.slice(skip)])
            skip = max(0, skip - table.num_rows)
            while first < end and waiting.num_rows >= self.rows_per_shard:
                self._write(out, first, waiting.slice(0, self.rows_per_shard))
                waiting = waiting.slice(self.rows_per_shard)
                written += self.rows_per_shard
                first += 1
            if written + waiting.num_rows >= shard.rows:
                break
        if first < end:  # the list's last one
            self._write(out, first, waiting)
            written += waiting.num_rows
        return {"rows_in": written, "rows_out": written}

    def _staying(self, first: int) -> Iterator[pa.Table]:
        """The rows that stay, from a file on."""
        begin = sum(self.rows[:first])
        for file, rows in zip(self.files[first:], self.rows[first:], strict=True):
            read = 0
            for table in self.listing.tables(file.payload, None):
                if read + table.num_rows <= rows:
                    keep = self._alive[0].slice(begin + read, begin + read + table.num_rows)
                    yield self._alike(table.filter(pa.array(keep)), file.name)
                read += table.num_rows
            if read != rows:
                raise ValueError(
                    f"{file.name} had {rows} rows when it was judged and {read} a moment later; run again "
                    "when nobody writes to it"
                )
            begin += rows

    def _alike(self, table: pa.Table, source: str) -> pa.Table:
        try:
            return table.select(self.schema.names).cast(self.schema)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{source} has other columns than the files before it: {error}") from error

    def _write(self, out: Workspace, number: int, table: pa.Table) -> None:
        start = number * self.rows_per_shard
        keys = [f"{row:0{KEY_DIGITS}d}" for row in range(start, start + table.num_rows)]
        values: dict[str, Any] = {name: table.column(name) for name in table.column_names}
        with out.create(f"urls-{number:05d}.parquet") as file:
            columns.write_table(file, {**values, "key": keys}, columns.URLS)  # type: ignore[arg-type]


def write_shards(scan: Scan, rows_per_shard: int) -> list[Shard]:
    """One shard for each file of the list in which a file to be written begins."""
    shards, before, begin, total = [], 0, 0, scan.alive.total()
    for index, (name, rows) in enumerate(scan.files):
        staying = int(np.count_nonzero(scan.alive.slice(begin, begin + rows)))
        first, end = -(-before // rows_per_shard), -(-(before + staying) // rows_per_shard)
        if first < end:
            start, stop = first * rows_per_shard, min(end * rows_per_shard, total)
            payload = {"file": index, "skip": start - before, "numbers": [first, end]}
            shards.append(Shard(index, name, stop - start, payload))
        before, begin = before + staying, begin + rows
    return shards
