"""What can be wrong with a `dataset` folder: index, digests, tar structure, samples, tables, doubled keys."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa

from reptok.data.columns import SAMPLES, read_table
from reptok.data.images import decode_image
from reptok.data.index import INDEX, SPLITS, DatasetIndex, ShardEntry, parse_index, table_row
from reptok.data.shards import EXTENSIONS, Sample, parse_sample
from reptok.data.tar import iterate_members
from reptok.data.verify import Verdict, in_processes

UNREADABLE = (ValueError, OSError, MemoryError, pa.ArrowException)
"""What reading a damaged parquet file raises."""


@dataclass
class ShardVerdict:
    """Faults of one shard; `hashes` are 64-bit digests of its keys, uint64 (rows,)."""

    faults: list[str] = field(default_factory=list)
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))


def verify_dataset(folder: Path, images: bool, workers: int, progress: Callable[[int, int], None]) -> Verdict:
    """Check a dataset; see `verify.verify`."""
    verdict = Verdict("dataset")
    try:
        index = parse_index((folder / INDEX).read_bytes())
    except ValueError as error:
        verdict.faults.append(str(error))
        return verdict
    entries = [entry for _, entry in index.shards]
    check = partial(verify_shard, folder, index, images)
    hashes = []
    for found in in_processes(check, entries, workers, progress):
        verdict.faults += found.faults
        hashes.append(found.hashes)
    verdict.shards, verdict.rows = len(entries), sum(len(part) for part in hashes)
    verdict.faults += _doubled_keys(folder, entries, hashes)
    verdict.faults += _unlisted(folder, index)
    return verdict


def verify_shard(folder: Path, index: DatasetIndex, images: bool, entry: ShardEntry) -> ShardVerdict:
    """Check one tar and the table beside it."""
    verdict, name = ShardVerdict(), f"{entry.shard}.tar"
    path, keys, rows = folder / name, [], []
    if not path.is_file():
        verdict.faults.append(f"{name}: missing, although {INDEX} lists it")
        return verdict
    with path.open("rb") as raw:
        file = _Hashing(raw)
        for sample in _samples(cast(BinaryIO, file), name, verdict.faults):
            keys.append(sample.key)
            rows.append(table_row(sample))
            verdict.faults += [
                f"{name}, sample {sample.key}: {fault}" for fault in _sample(sample, index, images)
            ]
        digest = file.finish()
    if path.stat().st_size != entry.bytes:
        verdict.faults.append(f"{name}: {path.stat().st_size} bytes where {INDEX} says {entry.bytes}")
    elif digest != entry.sha256:
        verdict.faults.append(f"{name}: its SHA-256 is not the one of {INDEX}")
    if len(keys) != entry.rows:
        verdict.faults.append(f"{name}: {len(keys)} sound samples where {INDEX} says {entry.rows}")
    verdict.faults += _table_faults(folder, entry.shard, rows)
    verdict.hashes = np.array([_hash(key) for key in keys], np.uint64)
    return verdict


class _Hashing:
    """A file that is hashed while it is read."""

    def __init__(self, file: BinaryIO):
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def finish(self) -> str:
        """SHA-256 of the whole file."""
        while self.read(2**20):
            pass
        return self._digest.hexdigest()


def _samples(file: BinaryIO, name: str, faults: list[str]) -> Iterator[Sample]:
    """The sound samples of a tar, read as far as its structure allows."""
    parts: dict[str, bytes] = {}
    current = ""

    def finished() -> Iterator[Sample]:
        if current:
            try:
                yield parse_sample(current, parts)
            except ValueError as error:
                faults.append(f"{name}: {error}")

    try:
        for member, data in iterate_members(file, name, faults.append):
            if member.key != current:
                yield from finished()
                if member.key < current:
                    faults.append(
                        f"{name}: key {member.key!r} comes after {current!r}; keys ascend, once each"
                    )
                current, parts = member.key, {}
            if member.extension not in EXTENSIONS or member.extension in parts:
                faults.append(f"{name}: unexpected member {member.name!r}")
            else:
                parts[member.extension] = data
    except ValueError as error:
        faults.append(str(error))
    else:
        yield from finished()


def _sample(sample: Sample, index: DatasetIndex, images: bool) -> list[str]:
    faults = []
    size, info, names = index.image_size, sample.info, index.class_names
    if images:
        try:
            height, width = decode_image(sample.jpg).shape[:2]
            if (width, height) != (size, size):
                faults.append(f"the image is {width} x {height}, {INDEX} says {size}")
        except ValueError as error:
            faults.append(str(error))
    if info.get("key", sample.key) != sample.key:
        faults.append(f"its JSON is of key {info['key']!r}")
    if (info.get("width"), info.get("height")) != (size, size):
        faults.append(f"its JSON says {info.get('width')} x {info.get('height')}, {INDEX} says {size}")
    label, subject = info.get("label"), info.get("subject")
    if label is not None and (names is None or not isinstance(label, int) or not 0 <= label < len(names)):
        faults.append(f"its label {label!r} is none of the {len(names or ())} classes")
    elif label is not None and names is not None and subject not in (None, names[label]):
        faults.append(f"its subject is {subject!r}, its label {label} stands for {names[label]!r}")
    return faults


def _table_faults(folder: Path, shard: str, rows: list[dict[str, Any]]) -> list[str]:
    """Compare the table beside a tar with the tar's samples."""
    name = f"{shard}.parquet"
    try:
        columns = list(dict.fromkeys([*SAMPLES.names, *(column for row in rows for column in row)]))
        found = read_table(folder / name, SAMPLES, name, columns).to_pylist()
    except FileNotFoundError:
        return [f"{name}: missing"]
    except UNREADABLE as error:
        return [str(error) if str(error).startswith(name) else f"{name}: {error}"]
    if len(found) != len(rows):
        return [f"{name}: {len(found)} rows for the {len(rows)} sound samples of the tar"]
    faults = []
    for number, (there, here) in enumerate(zip(found, rows, strict=True)):
        other = [column for column in here if here[column] != there[column]]
        if other:
            faults.append(
                f"{name}, row {number}: {', '.join(other)} differ from the tar's sample {here['key']}"
            )
    return faults


def _doubled_keys(folder: Path, entries: list[ShardEntry], hashes: list[np.ndarray]) -> list[str]:
    """Keys that come twice in the dataset: found by digest, then compared letter by letter."""
    every, counts = np.unique(np.concatenate([*hashes, np.empty(0, np.uint64)]), return_counts=True)
    doubled = every[counts > 1]
    if not len(doubled):
        return []
    places: dict[str, Counter[str]] = {}
    for entry, part in zip(entries, hashes, strict=True):
        if np.isin(part, doubled).any():
            try:
                keys = read_table(folder / f"{entry.shard}.parquet", SAMPLES, columns=["key"]).column("key")
            except UNREADABLE:
                continue  # named already
            for key in keys.to_pylist():
                if np.uint64(_hash(key)) in doubled:
                    places.setdefault(key, Counter())[entry.shard] += 1
    return [
        f"key {key!r} comes {places[key].total()} times, in {', '.join(sorted(places[key]))}"
        for key in sorted(places)
        if places[key].total() > 1
    ]


def _unlisted(folder: Path, index: DatasetIndex) -> list[str]:
    """Shards that the index leaves out: they belong to a split without samples, or to nobody."""
    listed = {entry.shard for _, entry in index.shards}
    faults = []
    for split in SPLITS:
        for path in sorted(folder.glob(f"{split}-*.tar")):
            if path.stem not in listed:
                try:
                    with path.open("rb") as file:
                        empty = next(iterate_members(file, path.name), None) is None
                except ValueError:
                    empty = False
                if split in index.splits or not empty:
                    faults.append(f"{path.name}: not listed in {INDEX}")
    return faults


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
