"""Stage select_urls: which URLs of a list to download."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import fsspec
import pyarrow as pa

from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.demo.web import TABLE
from pipelines.ops.url_rules import Filters, check_columns, make_rules
from pipelines.ops.url_source import find_sources, read_source
from reptok.data import columns

KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SelectUrlsConfig:
    """Where the list is and which of its rows are wanted.

    Attributes:
        sources: parquet or CSV files, folders or globs, by any URL of fsspec; none for the `web` artifact.
        columns: our column name to the source's, where they differ (`url`, `text`, ...).
        filters: bounds on columns.
        opt_out: file with a URL or a host per line that must not be used ("" for none).
        dedup_url: keep one row per URL.
        dedup_image: keep one row per `image_phash`.
        rows_per_shard: rows of one output file, which is what one download job works on.
    """

    sources: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    opt_out: str = ""
    dedup_url: bool = True
    dedup_image: bool = True
    rows_per_shard: int = 10_000

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, not {self.rows_per_shard}")


class SelectUrls(Stage):
    """Filter and deduplicate a list of URLs, and give every row that stays its key.

    urls-{shard}.parquet   `columns.URLS` and whatever else the source has
    drops.json             what each rule dropped, in the order in which they applied
    """

    name, output, version = "select_urls", "urls", 1
    needs_cluster: ClassVar[bool] = False

    def __init__(self, config: SelectUrlsConfig) -> None:
        super().__init__(config)
        self.inputs = () if config.sources else ("web",)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        rules = make_rules(
            self.config.filters,
            opted_out=_read_lines(self.config.opt_out),
            dedup_url=self.config.dedup_url,
            dedup_image=self.config.dedup_image,
        )
        shards = _ShardWriter(out, self.config.rows_per_shard)
        read: dict[str, int] = {}
        for name, table in self._tables(inputs):
            if name not in read:
                check_columns(rules, table.column_names, name)
            read[name] = read.get(name, 0) + table.num_rows
            for rule in rules:
                table = rule(table)
            shards.add(table, name)
        shards.close()
        rows_in = sum(read.values())
        report = [{"rule": rule.name, "threshold": rule.threshold, "dropped": rule.dropped} for rule in rules]
        sources = [{"file": posixpath.basename(name), "rows": rows} for name, rows in read.items()]
        out.write_json(
            "drops.json",
            {"rows_in": rows_in, "rows_out": shards.rows, "rules": report, "sources": sources},
        )
        if not shards.rows:
            raise ValueError(f"no URL is left of {rows_in} rows; dropped: {report}")
        return {
            "rows_in": rows_in,
            "rows_out": shards.rows,
            "shards": shards.count,
            **{f"dropped_{rule.name}": rule.dropped for rule in rules},
        }

    def _tables(self, inputs: Mapping[str, Artifact]) -> Iterator[tuple[str, pa.Table]]:
        if not self.config.sources:
            with inputs["web"].open(TABLE) as file:
                yield from ((TABLE, table) for table in read_source(file, TABLE, self.config.columns))
            return
        for system, path in find_sources(self.config.sources):
            with system.open(path, "rb") as file:
                yield from ((path, table) for table in read_source(file, path, self.config.columns))


class _ShardWriter:
    """Numbers the rows and writes a file whenever enough of them are there."""

    def __init__(self, out: Workspace, rows_per_shard: int) -> None:
        self._out, self._size = out, rows_per_shard
        self._waiting: pa.Table | None = None
        self.rows = self.count = 0

    def add(self, table: pa.Table, source: str) -> None:
        if self._waiting is None:
            self._waiting = table
        else:
            try:
                table = table.select(self._waiting.column_names).cast(self._waiting.schema)
            except (KeyError, ValueError, pa.ArrowException) as error:
                raise ValueError(f"{source} has other columns than the files before it: {error}") from error
            self._waiting = pa.concat_tables([self._waiting, table])
        while self._waiting.num_rows >= self._size:
            self._write(self._waiting.slice(0, self._size))
            self._waiting = self._waiting.slice(self._size)

    def close(self) -> None:
        if self._waiting is not None and self._waiting.num_rows:
            self._write(self._waiting)
        self._waiting = None

    def _write(self, table: pa.Table) -> None:
        keys = [f"{row:0{KEY_DIGITS}d}" for row in range(self.rows, self.rows + table.num_rows)]
        values: dict[str, Any] = {name: table.column(name) for name in table.column_names}
        with self._out.create(f"urls-{self.count:05d}.parquet") as file:
            columns.write_table(file, {**values, "key": keys}, columns.URLS)  # type: ignore[arg-type]
        self.rows += table.num_rows
        self.count += 1


def _read_lines(place: str) -> list[str]:
    if not place:
        return []
    with fsspec.open(place, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]
