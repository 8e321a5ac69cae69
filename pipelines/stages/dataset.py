"""The `dataset` artifact: how stages write its shards and index, and how they read its images.

Its files stand in `reptok/data/index.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.dag.artifact import Artifact
from pipelines.dag.coming import Coming
from pipelines.dag.shard_records import UNCOUNTED
from pipelines.dag.shards import Shard
from pipelines.dag.wanted import place_of
from pipelines.dag.workspace import Workspace
from pipelines.filters.verdicts import EXCLUDED as NAMED
from pipelines.stages.tables import dataset_shard, in_order
from reptok.data.columns import NAMED_KEYS, SAMPLES, read_table, write_table
from reptok.data.images import centre_crop, decode_image
from reptok.data.index import (
    EXCLUDED,
    INDEX,
    SPLITS,
    DatasetIndex,
    ShardEntry,
    parse_index,
    table_row,
)
from reptok.data.shards import Sample, SampleWriter, read_samples

CLASS_NAMES = "classes.json"
"""Names of the classes beside tables of imported images."""

IMAGE_SIZE = "image_size"
"""What is known of a dataset's images before it is made."""

READERS = 16
"""Tables read at a time: on an object store that is latency, not work."""


class DatasetShardWriter:
    """Writes a shard of a split and the table beside it; both may stay empty."""

    def __init__(self, out: Workspace, name: str, scores: Sequence[str] = ()):
        """Write `name`.tar and .parquet; the table gets a column for each of `scores`, which `info` holds."""
        self._out, self._name, self._scores = out, name, scores
        self._files = ExitStack()
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> DatasetShardWriter:
        file: Any = self._files.enter_context(self._out.create(f"{self._name}.tar"))
        self._writer = SampleWriter(file)
        return self

    def add(self, sample: Sample) -> None:
        """Append a sample, whose `info` has width and height, and label and subject where known."""
        self._writer.add(sample)
        self._rows.append(table_row(sample))

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            self._writer.close()
            with self._out.create(f"{self._name}.parquet") as file:
                table: Any = file
                columns: dict[str, Any] = {
                    name: [row.get(name) for row in self._rows] for name in SAMPLES.names
                }
                for name in self._scores:
                    columns[name] = pa.array([row.get(name) for row in self._rows], pa.float64())
                write_table(table, columns, SAMPLES)
            self._out.summaries[f"{self._name}.tar"] = {"rows": len(self._rows), "classes": self._classes()}
        self._files.__exit__(*error)

    def _classes(self) -> list[list[Any]]:
        """Each label with its subject, as the samples name them."""
        found = {(row.get("label"), row.get("subject")) for row in self._rows}
        return [list(pair) for pair in sorted(found, key=repr)]


def write_excluded(shards: Sequence[Shard], verdicts: Artifact, out: Workspace) -> int:
    """Write which samples trainings pass over: kept pictures with a twin in another shard; how many they are.

    Args:
        shards: Of the tables of images, in order; the dataset's shards have their splits and numbers.
        verdicts: Has a list of such pictures.
        out: The dataset; all shards are written.
    """
    with verdicts.open(NAMED) as file:
        named = read_table(file, NAMED_KEYS, NAMED, ["key", "table"]).to_pylist()
    keys: dict[str, set[str]] = {}
    for row in named:
        keys.setdefault(row["table"], set()).add(row["key"])
    places = [
        (dataset_shard(shard.payload["file"])[1], keys[shard.name]) for shard in shards if shard.name in keys
    ]

    def rows(place: tuple[str, set[str]]) -> list[int]:
        name, wanted = f"{place[0]}.parquet", place[1]
        table: Any = out.folder.open(name)
        with table:
            found = read_table(table, SAMPLES, name, ["key"]).column("key").to_pylist()
        return [number for number, key in enumerate(found) if key in wanted]

    with ThreadPoolExecutor(READERS) as readers:
        found = zip((name for name, _ in places), readers.map(rows, places), strict=True)
        excluded = {name: numbers for name, numbers in found if numbers}
    out.write_json(EXCLUDED, excluded)
    return sum(map(len, excluded.values()))


def write_index(
    out: Workspace, shards: Sequence[str], image_size: int, class_names: list[str] | None = None
) -> dict[str, int]:
    """Write the index of a dataset whose shards were written by this run's job, last of all files.

    Args:
        out: The workspace; knows size, SHA-256 and summary of its files.
        shards: Their names; a split without any sample is left out of the index.
        image_size: Side of the images.
        class_names: Name of each label; by default those that the samples tell.

    Returns:
        Samples per split.
    """
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    names: dict[int, str] = {}
    subjects: set[str] = set()

    for split in SPLITS:
        entries = []
        for name in in_order(shard for shard in shards if shard.startswith(f"{split}-")):
            tar, summary = out.digests[f"{name}.tar"], out.summaries[f"{name}.tar"]
            _collect(summary["classes"], names, subjects)
            entries.append(ShardEntry(name, summary["rows"], tar["size"], tar["sha256"]))
        if any(entry.rows for entry in entries):
            splits[split] = tuple(entries)
    if class_names is None and names:
        class_names = [names.get(label, str(label)) for label in range(max(names) + 1)]
    elif class_names is None and subjects:
        class_names = sorted(subjects)
    index = DatasetIndex(image_size, None if class_names is None else tuple(class_names), splits)
    out.write_json(INDEX, index.as_json())
    return {split: sum(entry.rows for entry in entries) for split, entries in splits.items()}


def _collect(classes: list[tuple[int | None, str | None]], names: dict[int, str], subjects: set[str]) -> None:
    for label, subject in classes:
        if subject is not None:
            subjects.add(subject)
        if label is None:
            continue
        if label < 0:
            raise ValueError(f"label {label} is negative; labels count from 0")
        name = subject if subject is not None else str(label)
        if names.setdefault(label, name) != name:
            raise ValueError(
                f"label {label} stands for {names[label]!r} and for {name!r}; correct the source's labels"
            )


def read_index(dataset: Artifact) -> DatasetIndex:
    """Read a dataset's index.

    Raises:
        ValueError: It is damaged, has another schema version, or no samples.
    """
    index = parse_index(dataset.read_bytes(INDEX), dataset.url_of(INDEX))
    if not index.splits:
        raise ValueError(
            f"dataset {dataset.fingerprint} has no samples: every image was dropped, see its stats"
        )
    return index


def image_size_of(dataset: Artifact) -> int:
    """Return the side of a dataset's images, be it there already or coming.

    Raises:
        ValueError: See `read_index`.
    """
    if isinstance(dataset, Coming):
        return int(dataset.facts[IMAGE_SIZE])
    return read_index(dataset).image_size


def dataset_files(name: str) -> tuple[str, ...]:
    """Return the names of the files that `DatasetShardWriter` writes."""
    return (f"{name}.tar", f"{name}.parquet")


def dataset_shards(dataset: Artifact) -> list[Shard]:
    """Return one shard per tar of a dataset, all splits, be it there already or coming.

    The payload names tar and split. The last numbers come last, so that a dataset that ends early has the
    first shards. The plan does not count the rows: `dataset_rows` does, where a shard is worked on.
    """
    names = [name.removesuffix(".tar") for name in in_order(dataset.files("*.tar"))]
    return [
        Shard(index, name, UNCOUNTED, {"shard": name, "split": name.partition("-")[0]})
        for index, name in enumerate(names)
    ]


def remove_empty_splits(dataset: Artifact, shards: Sequence[Shard], out: Workspace) -> None:
    """Remove the tars of a split of which the dataset, now that it is there, has no samples.

    Raises:
        ValueError: See `read_index`.
    """
    splits = read_index(dataset).splits
    for shard in shards:
        if shard.payload["split"] not in splits:
            out.folder.remove(f"{shard.name}.tar")


def dataset_rows(dataset: Artifact, shard: Shard) -> int:
    """Return the number of samples of a shard, as who wrote it has said."""
    name = str(shard.payload["shard"])
    if isinstance(dataset, Coming) and (record := dataset.record(place_of(shard))):
        return int(record["summaries"][f"{name}.tar"]["rows"])
    return _index_rows(dataset.url)[name]


@lru_cache(4)
def _index_rows(url: str) -> dict[str, int]:
    """Samples of each shard of a published dataset, which does not change."""
    splits = read_index(Artifact("dataset", url.rpartition("/")[2], url)).splits
    return Counter({entry.shard: entry.rows for entries in splits.values() for entry in entries})


def image_batches(
    dataset: Artifact, shard: str, image_size: int, batch_size: int
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (keys, images uint8 (B, S, S, 3)) over a shard in order, decoding one batch ahead.

    The batches depend on the shard and on `batch_size` alone.

    Raises:
        ValueError: The shard is damaged or an image cannot be decoded.
    """
    with dataset.open(f"{shard}.tar") as file, ThreadPoolExecutor(1, thread_name_prefix="decode") as reader:
        samples = read_samples(file)

        def read() -> tuple[list[str], np.ndarray] | None:
            batch = list(islice(samples, batch_size))
            if not batch:
                return None
            return [sample.key for sample in batch], np.stack(
                [_pixels(sample, shard, image_size) for sample in batch]
            )

        following = reader.submit(read)
        while (batch := following.result()) is not None:
            following = reader.submit(read)
            yield batch


def _pixels(sample: Sample, shard: str, image_size: int) -> np.ndarray:
    try:
        return centre_crop(decode_image(sample.jpg), image_size)
    except ValueError as error:
        raise ValueError(
            f"{shard}.tar, sample {sample.key}: {error}; rerun the stage that made the dataset"
        ) from error
