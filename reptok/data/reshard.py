"""Write a dataset anew with other shards: the same samples, by their keys in each, the index last."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from reptok.data.columns import SAMPLES, write_table
from reptok.data.excluded import read_excluded
from reptok.data.index import INDEX, DatasetIndex, ShardEntry, shard_name, table_row
from reptok.data.shards import Sample, SampleWriter, read_samples
from reptok.data.sorting import by_key
from reptok.data.stats import read_index
from reptok.data.verify import digest_of


def reshard(
    source: Path,
    target: Path,
    *,
    rows: int | None = None,
    shards: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DatasetIndex:
    """Copy the dataset in `source` to `target`, in shards of another size.

    Each has the next samples, in the order of their keys.

    The bytes depend on the samples and on the shard size alone, so that an interrupted copy is begun again by
    the same call. Every source shard is compared with its checksum first. Samples that trainings pass over
    are left out.

    Args:
        source: A dataset folder.
        target: A folder that holds no finished dataset.
        rows: Samples of one shard, the last of a split may have fewer.
        shards: Shards of the largest split instead; the others get shards of the same size.
        progress: Called with (samples done, samples in all).

    Returns:
        The new index.

    Raises:
        ValueError: Neither or both of `rows` and `shards`, or the source is damaged.
        FileExistsError: `target` holds a dataset already.
    """
    if (rows is None) == (shards is None) or (rows or shards or 0) < 1:
        raise ValueError("give either the rows of a shard or the number of shards, at least 1")
    if (target / INDEX).exists():
        raise FileExistsError(f"{target} holds a dataset already; choose another folder")
    index = read_index(source)
    excluded = read_excluded(source)
    sizes = {
        split: sum(entry.rows - len(excluded.get(entry.shard, ())) for entry in entries)
        for split, entries in index.splits.items()
    }
    if rows is None:
        rows = -(-max([1, *sizes.values()]) // (shards or 1))
    target.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(sizes.values())
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    for split, entries in index.splits.items():
        samples = _samples(source, entries, excluded)
        written: list[ShardEntry] = []
        while True:
            entry = _write_shard(target, shard_name(split, len(written)), by_key(islice(samples, rows)))
            if entry is None:
                break
            written.append(entry)
            done += entry.rows
            if progress is not None:
                progress(done, total)
        if sum(entry.rows for entry in written) != sizes[split]:
            raise ValueError(
                f"{source}: the shards of {split} do not hold the {sizes[split]} samples of its index"
            )
        splits[split] = tuple(written)
    made = replace(index, splits=splits)
    with _created(target / INDEX) as file:
        file.write((json.dumps(made.as_json(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return made


def _samples(
    source: Path, entries: tuple[ShardEntry, ...], excluded: Mapping[str, Sequence[int]]
) -> Iterator[Sample]:
    for entry in entries:
        path = source / f"{entry.shard}.tar"
        if digest_of(path) != entry.sha256:
            raise ValueError(f"{path} is damaged: its SHA-256 is not the one of {INDEX}")
        gone = set(excluded.get(entry.shard, ()))
        for number, sample in enumerate(read_samples(path)):
            if number not in gone:
                yield sample


def _write_shard(target: Path, name: str, samples: Iterator[Sample]) -> ShardEntry | None:
    """Write one tar and its table; None if no sample is left."""
    first = next(samples, None)
    if first is None:
        return None
    table: list[dict[str, Any]] = [table_row(first)]
    with _created(target / f"{name}.tar") as file:
        writer = SampleWriter(file)
        writer.add(first)
        for sample in samples:
            writer.add(sample)
            table.append(table_row(sample))
        writer.close()
    with _created(target / f"{name}.parquet") as file:
        write_table(file, table, SAMPLES)
    path = target / f"{name}.tar"
    return ShardEntry(name, len(table), path.stat().st_size, digest_of(path))


@contextmanager
def _created(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
