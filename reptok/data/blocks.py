"""Packed blocks: about 1,000 samples' tensors as one safetensors member of a tar.

Per-sample members would cost 30 times the reading time and a third more bytes for samples of a few KB.
Members are not compressed, so a loader can index a shard once and then seek to, or map, any block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from reptok.data.tar import Source, TarWriter, index_members, iterate_members, opened

SAMPLES_PER_BLOCK = 1000
KEYS = "keys"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class BlockEntry:
    """Where a block lies in its tar: `size` bytes of safetensors from `offset`, holding `rows` samples."""

    name: str
    offset: int
    size: int
    rows: int


class BlockWriter:
    """Pack batches into blocks of exactly `samples_per_block` samples (the last one may be shorter).

    The bytes depend on the samples and the block size, not on how the samples are grouped into `add` calls.
    """

    def __init__(self, file: BinaryIO, samples_per_block: int = SAMPLES_PER_BLOCK):
        """Write to `file`, which stays open and needs no seeking."""
        if samples_per_block < 1:
            raise ValueError(f"samples_per_block must be at least 1, got {samples_per_block}")
        self._tar = TarWriter(file)
        self._samples_per_block = samples_per_block
        self._pending: list[tuple[list[str], Arrays]] = []
        self._pending_rows = 0
        self._blocks = 0
        self.rows = 0

    def add(self, keys: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Append samples.

        Args:
            keys: n keys.
            arrays: Name to array of shape (n, ...), with the same names, dtypes and trailing shapes in
                every call.

        Raises:
            ValueError: An array has another length than `keys`, or is called "keys".
        """
        for name, array in arrays.items():
            if name == KEYS or len(array) != len(keys):
                raise ValueError(f"array {name!r} of {len(array)} rows does not go with {len(keys)} keys")
        self._pending.append((list(keys), dict(arrays)))
        self._pending_rows += len(keys)
        self.rows += len(keys)
        while self._pending_rows >= self._samples_per_block:
            self._flush(self._samples_per_block)

    def close(self) -> None:
        """Write the last block and the end of the archive; the file object stays open."""
        if self._pending_rows:
            self._flush(self._pending_rows)
        self._tar.close()

    def _flush(self, rows: int) -> None:
        keys = [key for batch, _ in self._pending for key in batch]
        arrays = {
            name: np.concatenate([batch[name] for _, batch in self._pending]) for name in self._pending[0][1]
        }
        block = {name: np.ascontiguousarray(array[:rows]) for name, array in arrays.items()}
        self._tar.add(f"{self._blocks:05d}.safetensors", save({KEYS: pack_keys(keys[:rows]), **block}))
        self._blocks += 1
        self._pending_rows -= rows
        self._pending = (
            [(keys[rows:], {n: a[rows:] for n, a in arrays.items()})] if self._pending_rows else []
        )


def iterate_blocks(source: Source) -> Iterator[Arrays]:
    """Stream a shard's blocks in order: name to array of shape (n, ...), with "keys" uint8 (n, K).

    Raises:
        ValueError: The archive or a block is damaged, or a member is not a block.
    """
    with opened(source) as (file, name):
        for member, data in iterate_members(file, name):
            _check_member(member.extension, member.name, name)
            yield parse_block(data, f"{name}:{member.name}")


def index_blocks(source: Source) -> list[BlockEntry]:
    """List a shard's blocks by reading headers alone (two small reads a block); `source` must be seekable."""
    entries = []
    with opened(source) as (file, name):
        for member in index_members(file, name):
            _check_member(member.extension, member.name, name)
            file.seek(member.offset)
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= member.size - 8:
                raise ValueError(
                    f"{name}:{member.name} is not a safetensors block; rerun the stage that made it"
                )
            try:
                rows = int(json.loads(file.read(length))[KEYS]["shape"][0])
            except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
                raise ValueError(
                    f"{name}:{member.name} is damaged ({error!r}); rerun the stage that made it"
                ) from error
            entries.append(BlockEntry(member.name, member.offset, member.size, rows))
    return entries


def read_block(source: Source, entry: BlockEntry) -> Arrays:
    """Read one block of a seekable shard; see `iterate_blocks` for what it holds."""
    with opened(source) as (file, name):
        file.seek(entry.offset)
        return parse_block(file.read(entry.size), f"{name}:{entry.name}")


def pack_keys(keys: Sequence[str]) -> np.ndarray:
    """Pack ASCII keys into a uint8 matrix (n, K), K the longest key's length, padded with zeros."""
    width = max([1, *map(len, keys)])
    return (
        np.array([key.encode("ascii") for key in keys], f"S{width}").view(np.uint8).reshape(len(keys), width)
    )


def unpack_keys(matrix: np.ndarray) -> list[str]:
    """Return the strings that `pack_keys` packed, from uint8 (n, K).

    Raises:
        ValueError: It is no such matrix.
    """
    if matrix.dtype != np.uint8 or matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(f"keys are {matrix.dtype} {matrix.shape}, uint8 (n, K) is expected")
    matrix = np.ascontiguousarray(matrix)
    return [key.decode("ascii") for key in matrix.view(f"S{matrix.shape[1]}").ravel().tolist()]


def _check_member(extension: str, member: str, name: str) -> None:
    if extension != "safetensors":
        raise ValueError(f"{name}: member {member!r} is not a block; this is no latents or tokens shard")


def parse_block(data: bytes, name: str = "the block") -> Arrays:
    """Parse one block's bytes.

    Raises:
        ValueError: It is damaged, or has no keys.
    """
    try:
        block = load(data)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a type that numpy does not have
        raise ValueError(f"{name} is damaged ({error}); rerun the stage that made it") from error
    if KEYS not in block:
        raise ValueError(f"{name} has no keys, so it is no block; rerun the stage that made it")
    return block
