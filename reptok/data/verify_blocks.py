"""What can be wrong with `latents` or `tokens`: blocks, values, alignment, LatentSpec, statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from reptok.data.blocks import KEYS, SAMPLES_PER_BLOCK, parse_block, unpack_keys
from reptok.data.columns import SAMPLES, read_table
from reptok.data.index import INDEX, DatasetIndex, ShardEntry, parse_index
from reptok.data.shards import parse_object
from reptok.data.statistics import RunningMoments
from reptok.data.tar import iterate_members
from reptok.data.verify import LATENT_SPEC, TOKEN_STATS, Verdict, in_processes
from reptok.data.verify_dataset import UNREADABLE

ARRAYS: dict[str, dict[str, tuple[type, int]]] = {
    "latents": {"moments": (np.float16, 5), "frozen_token": (np.float32, 4)},
    "tokens": {"token": (np.float32, 4)},
}
"""Dtype and number of dimensions of each kind's arrays; the first two are (rows, image or mirror image)."""


@dataclass
class ShardVerdict:
    """Faults of one shard, its rows, its arrays' shapes without rows, and the sums of its tokens."""

    faults: list[str] = field(default_factory=list)
    rows: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    moments: RunningMoments | None = None


def verify_blocks(
    folder: Path, kind: str, dataset: Path | None, workers: int, progress: Callable[[int, int], None]
) -> Verdict:
    """Check latents or tokens, and compare them with `dataset`; see `verify.verify`."""
    verdict = Verdict(kind)
    index: DatasetIndex | None = None
    if dataset is None:
        verdict.notes.append("not compared with its dataset: name that with --dataset")
    else:
        try:
            index = parse_index((dataset / INDEX).read_bytes(), str(dataset / INDEX))
        except (OSError, ValueError) as error:
            verdict.faults.append(str(error))
    present = sorted(path.stem for path in folder.glob("*.tar"))
    entries = [entry for _, entry in index.shards] if index else [ShardEntry(n, -1, 0, "") for n in present]
    names = {entry.shard for entry in entries}
    verdict.faults += [f"{name}.tar: the dataset has no such shard" for name in present if name not in names]
    check = partial(verify_shard, folder, kind, dataset if index else None)
    shapes: dict[str, dict[tuple[int, ...], str]] = {}
    moments: RunningMoments | None = None
    for entry, found in zip(entries, in_processes(check, entries, workers, progress), strict=True):
        verdict.faults += found.faults
        verdict.rows += found.rows
        for name, shape in found.shapes.items():
            shapes.setdefault(name, {}).setdefault(shape, entry.shard)
        if found.moments is not None and entry.shard.startswith("train-"):
            moments = moments or RunningMoments.empty(len(found.moments.total))
            if len(found.moments.total) == len(moments.total):
                moments.merge(found.moments)
    verdict.shards = len(entries)
    for name, kinds in shapes.items():
        if len(kinds) > 1:
            listed = ", ".join(f"{shape} in {shard}.tar" for shape, shard in kinds.items())
            verdict.faults.append(f"{name} has several shapes: {listed}")
    first = {name: next(iter(found)) for name, found in shapes.items()}
    verdict.faults += _spec_faults(folder, kind, index, first)
    if kind == "tokens":
        verdict.faults += _statistics_faults(folder, moments)
    return verdict


def verify_shard(folder: Path, kind: str, dataset: Path | None, entry: ShardEntry) -> ShardVerdict:
    """Check one shard's blocks, and their keys against the dataset's."""
    verdict, name = ShardVerdict(), f"{entry.shard}.tar"
    keys: list[str] = []
    if not (folder / name).is_file():
        verdict.faults.append(f"{name}: missing, although the dataset has that shard")
        return verdict
    before = SAMPLES_PER_BLOCK
    try:
        with (folder / name).open("rb") as file:
            for member, data in iterate_members(file, name, verdict.faults.append):
                where = f"{name}:{member.name}"
                try:
                    block = parse_block(data, where)
                    keys += unpack_keys(block[KEYS])
                except ValueError as error:
                    verdict.faults.append(str(error))
                    continue
                verdict.faults += [f"{where}: {fault}" for fault in _block_faults(block, kind, verdict)]
                rows = len(block[KEYS])
                if before != SAMPLES_PER_BLOCK or rows > SAMPLES_PER_BLOCK:
                    verdict.faults.append(
                        f"{where}: {rows} rows after a block of {before}, which is not full"
                    )
                before = rows
    except ValueError as error:
        verdict.faults.append(str(error))
    verdict.rows = len(keys)
    if dataset is not None:
        verdict.faults += _alignment_faults(name, keys, dataset, entry)
    return verdict


def _block_faults(block: dict[str, np.ndarray], kind: str, verdict: ShardVerdict) -> Iterator[str]:
    expected = ARRAYS[kind]
    if set(block) != {KEYS, *expected}:
        yield f"holds {', '.join(sorted(block))} where {', '.join([KEYS, *expected])} are expected"
    rows = len(block[KEYS])
    for name, (dtype, dimensions) in expected.items():
        array = block.get(name)
        if array is None:
            continue
        if array.dtype != dtype or array.ndim != dimensions or array.shape[:2] != (rows, 2):
            yield f"{name} is {array.dtype} {array.shape}, for {rows} keys and their mirror images"
            continue
        verdict.shapes.setdefault(name, array.shape[2:])
        bad = ~np.isfinite(array).reshape(rows, -1).all(1)
        if bad.any():
            yield f"{name} is not finite in row {int(bad.argmax())} ({int(bad.sum())} rows in all)"
        elif name == "token":
            verdict.moments = verdict.moments or RunningMoments.empty(array.shape[-1])
            if len(verdict.moments.total) == array.shape[-1]:
                verdict.moments.update(array)


def _alignment_faults(name: str, keys: list[str], dataset: Path, entry: ShardEntry) -> list[str]:
    try:
        table = read_table(dataset / f"{entry.shard}.parquet", SAMPLES, columns=["key"])
    except UNREADABLE as error:
        return [f"{name}: its dataset's table cannot be read: {error}"]
    expected = table.column("key").to_pylist()
    if keys == expected:
        return []
    pairs = enumerate(zip(keys, expected, strict=False))
    first = next((number for number, (a, b) in pairs if a != b), min(len(keys), len(expected)))
    return [
        f"{name}: {len(keys)} rows for the dataset's {len(expected)}, other keys from row {first} on; it is "
        "damaged, or was made from another dataset"
    ]


def _spec_faults(
    folder: Path, kind: str, index: DatasetIndex | None, shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    from reptok.autoencoder import LatentSpec

    try:
        value = parse_object((folder / LATENT_SPEC).read_bytes())
    except (OSError, ValueError) as error:
        return [f"{LATENT_SPEC}: not readable: {error}"]
    faults = []
    for entry in fields(LatentSpec):
        found = value.get(entry.name)
        wanted = {"str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}[str(entry.type)]
        if type(found) not in wanted:
            faults.append(f"{LATENT_SPEC}: {entry.name} is {found!r}, {entry.type} is expected")
    if faults:
        return faults
    spec: Any = LatentSpec(**{entry.name: value[entry.name] for entry in fields(LatentSpec)})
    if index and spec.image_size not in (0, index.image_size):
        faults.append(f"{LATENT_SPEC}: images of {spec.image_size} px, the dataset's have {index.image_size}")
    if spec.downsample < 1:
        return [*faults, f"{LATENT_SPEC}: downsample is {spec.downsample}"]
    side = spec.image_size // spec.downsample
    expected = (2 * spec.channels, side, side)
    if kind == "latents" and shapes.get("moments", expected) != expected and spec.image_size:
        faults.append(f"moments are {shapes['moments']}, {LATENT_SPEC} says {expected}")
    return faults


def _statistics_faults(folder: Path, moments: RunningMoments | None) -> list[str]:
    """Compare the statistics with those of the train tokens, computed anew."""
    try:
        stats = load((folder / TOKEN_STATS).read_bytes())
        mean, std = stats["mean"], stats["std"]
    except (OSError, KeyError, SafetensorError) as error:
        return [f"{TOKEN_STATS}: not readable: {error}"]
    if moments is None or not moments.count:
        return [f"{TOKEN_STATS}: there are no train tokens to compare it with"]
    faults = []
    scale = float(moments.std.mean()) + 1e-12
    for name, found, expected in (("mean", mean, moments.mean), ("std", std, moments.std)):
        if found.shape != expected.shape or found.dtype != np.float32:
            faults.append(
                f"{TOKEN_STATS}: {name} is {found.dtype} {found.shape} for tokens of {len(expected)} numbers"
            )
        elif not np.abs(found - expected).max() <= 1e-3 * scale:
            off = float(np.abs(found - expected).max())
            faults.append(f"{TOKEN_STATS}: {name} is off by {off:.3g} from that of the train tokens")
    return faults
