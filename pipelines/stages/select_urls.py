"""Stage select_urls: which URLs of a list to download."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa

from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.urls.drop_report import as_html, as_json
from pipelines.urls.duplicates import MAX_DISTANCE, Neighbours
from pipelines.urls.opt_out import OPT_OUT
from pipelines.urls.rules import Filters, image_hashes, make_rules
from pipelines.urls.source import find_sources, read_source
from pipelines.urls.survey import Dedup, Survey
from reptok.bounds import Count, Whole
from reptok.data import columns

KEY_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class SelectUrlsConfig:
    """Where the list is and which of its rows are wanted.

    Attributes:
        sources: parquet or CSV files, folders or globs, by any URL of fsspec; artifact:KIND/FILE for a list
            that another stage makes.
        columns: our column name to the source's, where they differ (`url`, `text`, ...).
        filters: bounds on columns.
        opt_out: file with a URL or a host per line that must not be used ("" for none). Another list makes
            another artifact, and so do all stages after it; `pipelines/purge.py` deletes what the old ones
            hold.
        held_out: file of `image_phash` values, one per line, of images that must stay unseen ("" for none).
        held_out_distance: largest Hamming distance at which an image counts as one of those.
        dedup_url: keep one row per URL.
        dedup_image: keep one row per `image_phash`.
        dedup_distance: also keep one row of images whose hashes differ in at most so many bits (0 for none).
        rows_per_shard: rows of one output file, which is what one download job works on.
        lists_digest: of the contents of both files; the stage fills it in.
    """

    sources: tuple[str, ...] = ()
    columns: dict[str, str] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    opt_out: str = insignificant("")
    held_out: str = insignificant("")
    held_out_distance: Whole = 4
    dedup_url: bool = True
    dedup_image: bool = True
    dedup_distance: Whole = 0
    rows_per_shard: Count = 10_000
    lists_digest: str = ""

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, not {self.rows_per_shard}")
        for name in ("held_out_distance", "dedup_distance"):
            if not 0 <= getattr(self, name) <= MAX_DISTANCE:
                raise ValueError(
                    f"{name} must be between 0 and {MAX_DISTANCE} bits, not {getattr(self, name)}"
                )


class SelectUrls(Stage):
    """Filter and deduplicate a list of URLs, and give every row that stays its key.

    The list is read twice: first the columns that the rules read, then the rows that stay.

    urls-{shard}.parquet   `columns.URLS` and whatever else the source has
    drops.json             what each rule drops, alone and in the order in which they apply
    drops.html             the same for people
    opt_out.txt            who had opted out, if anybody had: the download asks it where redirects lead
    """

    name, output, version = "select_urls", "urls", 3

    def __init__(self, config: SelectUrlsConfig) -> None:
        super().__init__(replace(config, lists_digest=_lists_digest(config)))
        self.inputs = tuple(dict.fromkeys(kind for kind, _ in made(config)))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        shutil.rmtree(out.scratch / "hashes", ignore_errors=True)  # of a run that was killed
        survey = surveyed(self.config, self._tables(inputs), out.scratch / "hashes")
        report = as_json(survey)
        if not report["rows_out"]:
            raise ValueError(f"no URL is left of {survey.rows} rows; dropped: {report['rules']}")
        shards = _ShardWriter(out, self.config.rows_per_shard)
        read = 0
        for name, table in self._tables(inputs)(None):
            if read + table.num_rows <= survey.rows:
                shards.add(table.filter(survey.alive.slice(read, read + table.num_rows)), name)
            read += table.num_rows
        shards.close()
        if read != survey.rows:
            raise ValueError(
                f"the list had {survey.rows} rows when it was judged and {read} a moment later; run again "
                "when nobody writes to it"
            )
        out.write_json("drops.json", report)
        out.write_bytes("drops.html", as_html(report).encode())
        if opted_out := read_lines(self.config.opt_out):
            out.write_bytes(OPT_OUT, "\n".join(sorted(set(opted_out))).encode())
        return {
            "rows_in": survey.rows,
            "rows_out": shards.rows,
            "shards": shards.count,
            **{f"dropped_{drops.rule}": drops.dropped for drops in survey.drops},
        }

    def _tables(self, inputs: Mapping[str, Artifact]) -> Tables:
        return Tables(self.config, inputs)


def made(config: SelectUrlsConfig) -> list[tuple[str, str]]:
    """Kind and file of the sources that other stages make."""
    names = [source.removeprefix(ARTIFACT) for source in config.sources if source.startswith(ARTIFACT)]
    return [(kind, file) for kind, _, file in (name.partition("/") for name in names)]


class Tables:
    """The list as a stream of (file, table), as often as it is called.

    Args:
        config: names the files.
        inputs: artifacts that hold lists, by kind.
    """

    def __init__(self, config: SelectUrlsConfig, inputs: Mapping[str, Artifact] | None = None) -> None:
        self._config, self._inputs = config, inputs or {}
        self._columns = {"url": "url", "text": "text", **config.columns}

    def __call__(self, only: Iterable[str] | None) -> Iterator[tuple[str, pa.Table]]:
        """Read the columns named `only`, or all."""
        for kind, name in made(self._config):
            with self._inputs[kind].open(name) as file:
                for table in read_source(file, name, self._columns, only):
                    yield name, table
        others = [source for source in self._config.sources if not source.startswith(ARTIFACT)]
        for system, path in find_sources(others) if others else ():
            with system.open(path, "rb") as file:
                for table in read_source(file, path, self._columns, only):
                    yield path, table


def surveyed(config: SelectUrlsConfig, tables: Any, folder: Path, most_rows: int | None = None) -> Survey:
    """Judge every row of a list, or its first ones.

    Args:
        config: the rules.
        tables: gives the list as a stream of (file, table) for the names of the columns to read.
        folder: for temporary files.
        most_rows: judge no more rows than about this.
    """
    held_out = None
    if config.held_out:
        held_out = Neighbours(image_hashes(read_lines(config.held_out))[0], config.held_out_distance)
    rules = make_rules(config.filters, opted_out=read_lines(config.opt_out), held_out=held_out)
    dedup = Dedup(url=config.dedup_url, image=config.dedup_image, image_distance=config.dedup_distance)
    survey = Survey(rules, dedup, folder)
    for name, table in tables(survey.columns):
        survey.add(name, table)
        if most_rows is not None and survey.rows >= most_rows:
            break
    survey.finish()
    shutil.rmtree(folder, ignore_errors=True)
    return survey


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


def read_lines(place: str) -> list[str]:
    """Lines of a list without comments; hashes and hosts have no "#" in front."""
    if not place:
        return []
    with fsspec.open(place, "rt", encoding="utf-8-sig") as file:
        return [line.strip() for line in file if line.strip() and not line.startswith("#")]


def _lists_digest(config: SelectUrlsConfig) -> str:
    """What a list says is significant, not where it lies: a longer list must make another artifact."""
    if not (config.opt_out or config.held_out):
        return ""
    contents = [sorted(read_lines(place)) for place in (config.opt_out, config.held_out)]
    return hashlib.sha256(repr(contents).encode()).hexdigest()[:16]
