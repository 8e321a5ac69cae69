"""Stage select_urls: which URLs of a list to download."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.stages.tables import occupied
from pipelines.urls.alike import Uncounted, within
from pipelines.urls.drop_report import as_html, as_json
from pipelines.urls.duplicates import MAX_DISTANCE
from pipelines.urls.judge import Dedup, Judge
from pipelines.urls.listing import Listing, UrlList
from pipelines.urls.opt_out import OPT_OUT
from pipelines.urls.rules import Filters, check_columns, image_hashes
from pipelines.urls.scan import Scan, scan
from pipelines.urls.write import SortRows, WriteUrls, sort_shards, write_shards
from reptok.bounds import Count, Decay, Whole

HERE_BYTES = 64 << 20
"""A list of no more bytes is selected in the program's own process: workers cost more than they save."""
READERS = 16
SCAN = "scan"


@dataclass(frozen=True, kw_only=True)
class SelectUrlsConfig:
    """Where the list is and which of its rows are wanted.

    Attributes:
        sources: parquet or CSV files, folders or globs, by any URL of fsspec; artifact:KIND/FILE for a list
            that another stage makes.
        parts: further lists by name, which came later: of duplicates the earlier part's row stays, and a part
            adds files of its own and changes none of those before; it follows from data.parts.
        columns: our column name to the source's, where they differ (`url`, `text`, ...).
        filters: bounds on columns.
        opt_out: file with a URL or a host per line that must not be used ("" for none). It is asked after
            everything else, so that all other rows stay where they are. Another list makes another artifact,
            and so do all stages after it; `pipelines/purge.py` deletes what the old ones hold.
        held_out: file of `image_phash` values, one per line, of images that must stay unseen ("" for none).
        held_out_distance: largest Hamming distance at which an image counts as one of those.
        dedup_url: keep one row per URL, whose key is the URL's; else one per URL and text.
        dedup_image: keep one row per `image_phash`.
        dedup_distance: also keep one row of images whose hashes differ in at most so many bits (0 for none).
        val_fraction: expected share of validation rows, among those whose split the list does not name.
        rows_per_shard: rows of one output file on average, at most; it is what one download job works on.
        workers: processes that share a large list, and what each occupies.
        lists_digest: of the contents of both files; the stage fills it in.
    """

    sources: tuple[str, ...] = ()
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)
    filters: Filters = field(default_factory=Filters)
    opt_out: str = insignificant("")
    held_out: str = insignificant("")
    held_out_distance: Whole = 4
    dedup_url: bool = True
    dedup_image: bool = True
    dedup_distance: Whole = 0
    val_fraction: Decay = 0.01
    rows_per_shard: Count = 10_000
    workers: WorkerResources = insignificant(factory=WorkerResources)
    lists_digest: str = ""

    def __post_init__(self) -> None:
        if self.rows_per_shard < 1:
            raise ValueError(f"rows_per_shard must be at least 1, not {self.rows_per_shard}")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"select_urls.val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.workers.max_failed:
            raise ValueError(
                "select_urls.workers.max_failed must be 0: a row may be in any two files, so all are read"
            )
        for name in ("held_out_distance", "dedup_distance"):
            if not 0 <= getattr(self, name) <= MAX_DISTANCE:
                raise ValueError(
                    f"{name} must be between 0 and {MAX_DISTANCE} bits, not {getattr(self, name)}"
                )

    @property
    def places(self) -> tuple[str, ...]:
        """The lists of all parts."""
        return (*self.sources, *chain(*self.parts.values()))


class SelectUrls(Stage):
    """Filter and deduplicate a list of URLs, and give every row that stays its key and its split.

    The list is read twice: first the columns that the rules read, then the rows that stay.

    urls-{split}-{number}.parquet   `columns.URLS` and whatever else the source has
    drops.json    what each rule drops, alone and in the order in which they apply
    drops.html    the same for people
    opt_out.txt   who had opted out, if anybody had: the download asks it where redirects lead
    """

    name, output, version = "select_urls", "urls", 4

    def __init__(self, config: SelectUrlsConfig) -> None:
        super().__init__(replace(config, lists_digest=_lists_digest(config)))
        self.inputs = tuple(dict.fromkeys(kind for kind, _ in made(config)))
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config = self.config
        listing = UrlList(config.columns, inputs)
        parts = [listing.files(places) for places in (config.sources, *config.parts.values())]
        files = [replace(file, index=index) for index, file in enumerate(chain(*parts))]
        judge = judging(config, listing)
        schema = _checked(listing, files, judge)
        here = _total_bytes(listing, files) <= HERE_BYTES
        each = partial(map_shards, resources=config.workers, here=here)
        place = Workspace(f"{out.scratch_url}/{SCAN}", out.fingerprint, out.log)
        found = scan(files, judge, place, each)
        report = as_json(found)
        if not report["rows_out"]:
            raise ValueError(f"no URL is left of {found.rows} rows; dropped: {report['rules']}")
        for bits in ("alive", "placed"):
            place.folder.write_bytes(bits, getattr(found, bits).packed())
        sort = SortRows(
            listing=listing,
            identity=judge.dedup.identity,
            val_fraction=config.val_fraction,
            bits=place.url,
            total=found.rows,
            schema=schema,
        )
        cuts = np.cumsum([0, *map(len, parts)]).tolist()
        by_part = [files[start:stop] for start, stop in pairwise(cuts)]
        laid_out = sort_shards(by_part, [rows for _, rows in found.files], found.placed)
        in_order = within(place, "sorted", "files")
        each(list(chain(*laid_out)), sort, in_order)
        target = Workspace(out.url, out.fingerprint, Uncounted(out.log, "parts"))
        shards = write_shards(laid_out, in_order, config.rows_per_shard)
        written = each(shards, WriteUrls(pieces=in_order.url, schema=schema), target)
        if written["rows"] != report["rows_out"]:
            raise ValueError(f"{report['rows_out']} rows stay, and {written['rows']:.0f} were written")
        out.digests.update(target.digests)
        out.write_json("drops.json", report)
        out.write_bytes("drops.html", as_html(report).encode())
        if opted_out := read_lines(config.opt_out):
            out.write_bytes(OPT_OUT, "\n".join(sorted(set(opted_out))).encode())
        return {
            "rows_in": found.rows,
            "rows_out": written["rows"],
            "shards": sum(shard.payload["end"] - shard.payload["first"] for shard in shards),
            **{f"dropped_{drops.rule}": drops.dropped for drops in found.drops},
        }


def made(config: SelectUrlsConfig) -> list[tuple[str, str]]:
    """Kind and file of the sources that other stages make."""
    names = [source.removeprefix(ARTIFACT) for source in config.places if source.startswith(ARTIFACT)]
    return [(kind, file) for kind, _, file in (name.partition("/") for name in names)]


def judging(config: SelectUrlsConfig, listing: Listing) -> Judge:
    """The rules of a configuration, over a list."""
    held_out = image_hashes(read_lines(config.held_out))[0] if config.held_out else None
    identity = ("url",) if config.dedup_url else ("url", "text")
    dedup = Dedup(identity=identity, image=config.dedup_image, image_distance=config.dedup_distance)
    return Judge(
        listing=listing,
        filters=config.filters,
        dedup=dedup,
        opted_out=read_lines(config.opt_out),
        held_out=held_out,
        held_out_distance=config.held_out_distance,
    )


@dataclass(frozen=True)
class _Stream:
    """A list that comes as one stream, or its first rows."""

    stream: Callable[[Collection[str] | None], Iterable[tuple[str, pa.Table]]]
    most_rows: int | None = None

    def tables(self, file: Mapping[str, str], only: Collection[str] | None) -> Iterator[pa.Table]:
        read = 0
        for _, table in self.stream(only):
            yield table
            read += table.num_rows
            if self.most_rows is not None and read >= self.most_rows:
                return


def streamed(
    config: SelectUrlsConfig,
) -> Callable[[Collection[str] | None], Iterator[tuple[str, pa.Table]]]:
    """The files of a configuration as one stream of (file, table), for the columns that are asked for."""
    listing = UrlList(config.columns)
    files = listing.files(config.places)

    def tables(only: Collection[str] | None) -> Iterator[tuple[str, pa.Table]]:
        for file in files:
            for table in listing.tables(file.payload, only):
                yield file.name, table

    return tables


def scanned(config: SelectUrlsConfig, tables: Any, folder: Path, most_rows: int | None = None) -> Scan:
    """Judge every row of a list, or its first ones, in this process.

    Args:
        config: the rules.
        tables: gives the list as a stream of (file, table) for the names of the columns to read.
        folder: for temporary files.
        most_rows: judge no more rows than about this.
    """
    file = Shard(0, "the list", 1, {})
    judge = judging(config, _Stream(tables, most_rows))
    try:
        return scan([file], judge, Workspace(str(folder)), partial(map_shards, here=True))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _checked(listing: UrlList, files: Sequence[Shard], judge: Judge) -> pa.Schema:
    """The columns and types of the first file, after all files were found to have what the rules read."""
    with ThreadPoolExecutor(READERS) as readers:
        heads = list(readers.map(lambda file: listing.head(file.payload), files))
    reads = judge.reads()
    for file, head in zip(files, heads, strict=True):
        check_columns(reads, head.column_names, file.name)
    return heads[0].schema


def _total_bytes(listing: UrlList, files: Sequence[Shard]) -> float:
    with ThreadPoolExecutor(READERS) as readers:
        sizes = list(readers.map(lambda file: listing.size(file.payload), files))
    return float("inf") if None in sizes else float(sum(size or 0 for size in sizes))


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
