"""Random access to the rows of shards: tars are memory-mapped, so only the rows asked for are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from reptok.data.blocks import KEYS, index_blocks, unpack_keys
from reptok.data.tar import index_members, opened

_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "I64": np.int64}


class Rows(Protocol):
    """One shard."""

    def __len__(self) -> int: ...


S = TypeVar("S", bound=Rows)


@dataclass(frozen=True, slots=True)
class _Array:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class BlockRows:
    """The rows of one shard of packed blocks (`latents`, `tokens`)."""

    def __init__(self, path: Path):
        """Index the shard at `path`.

        Raises:
            ValueError: The archive or a block's header is damaged.
        """
        self.path = path
        self._bytes = np.memmap(path, np.uint8, "r")
        entries = index_blocks(path)
        self._ends = np.cumsum([entry.rows for entry in entries])
        self._blocks = [self._header(entry.offset) for entry in entries]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def keys(self) -> list[str]:
        """Return every row's key, in order."""
        return [key for block in self._blocks for key in unpack_keys(self._view(block[KEYS]))]

    def gather(self, name: str, rows: np.ndarray, variant: np.ndarray) -> np.ndarray:
        """Copy rows of array `name`, stored as (n, variants, ...).

        Args:
            name: The array's name in the blocks.
            rows: Row numbers in the shard, int (k,).
            variant: Which variant of each row (0 image, 1 its mirror image), int (k,).

        Returns:
            The rows, (k, ...) in the stored dtype.

        Raises:
            ValueError: The blocks hold no such array.
        """
        blocks = np.searchsorted(self._ends, rows, side="right")
        result: np.ndarray | None = None
        for number in np.unique(blocks):
            if name not in self._blocks[number]:
                raise ValueError(f"{self.path} holds no {name!r} (it has: {', '.join(self._blocks[number])})")
            view, chosen = self._view(self._blocks[number][name]), blocks == number
            start = self._ends[number] - len(view)
            part = view[rows[chosen] - start, variant[chosen]]
            if result is None:
                result = np.empty((len(rows), *part.shape[1:]), part.dtype)
            result[chosen] = part
        if result is None:
            raise ValueError("no row was asked for")
        return result

    def _header(self, offset: int) -> dict[str, _Array]:
        length = int.from_bytes(self._bytes[offset : offset + 8].tobytes(), "little")
        header = json.loads(self._bytes[offset + 8 : offset + 8 + length].tobytes())
        return {
            name: _Array(
                offset + 8 + length + entry["data_offsets"][0],
                tuple(entry["shape"]),
                np.dtype(_DTYPES[entry["dtype"]]),
            )
            for name, entry in header.items()
            if name != "__metadata__"
        }

    def _view(self, array: _Array) -> np.ndarray:
        size = int(np.prod(array.shape)) * array.dtype.itemsize
        return self._bytes[array.offset : array.offset + size].view(array.dtype).reshape(array.shape)


class ImageRows:
    """The JPEG files of one shard of `dataset`."""

    def __init__(self, path: Path):
        """Index the shard at `path` (headers alone are read)."""
        with opened(path) as (file, name):
            self._members = [member for member in index_members(file, name) if member.extension == "jpg"]
        self._bytes = np.memmap(path, np.uint8, "r")

    def __len__(self) -> int:
        return len(self._members)

    def keys(self) -> list[str]:
        """Return every row's key, in order."""
        return [member.key for member in self._members]

    def jpg(self, row: int) -> bytes:
        """Return the file's bytes of one row."""
        member = self._members[row]
        return self._bytes[member.offset : member.offset + member.size].tobytes()


class Shards(Generic[S]):
    """Shards opened at first use and addressed by a sample index that runs over all of them."""

    def __init__(self, paths: Sequence[Path], rows: Sequence[int], open_shard: Callable[[Path], S]):
        """Address the samples of `paths`, which hold `rows` samples each."""
        self.paths, self.rows = list(paths), list(rows)
        self._ends = np.cumsum(self.rows)
        self._open_shard = open_shard
        self._opened: dict[int, S] = {}

    def shard(self, number: int) -> S:
        """Open a shard, once.

        Raises:
            ValueError: It does not hold the promised number of rows.
        """
        if number not in self._opened:
            shard = self._open_shard(self.paths[number])
            if len(shard) != self.rows[number]:
                raise ValueError(
                    f"{self.paths[number]} holds {len(shard)} rows where the dataset's index promises "
                    f"{self.rows[number]}; rerun the stage that made it on this dataset"
                )
            self._opened[number] = shard
        return self._opened[number]

    def locate(self, samples: np.ndarray) -> list[tuple[S, np.ndarray, np.ndarray]]:
        """Group sample indices by shard: (shard, row numbers in it, where these stand in `samples`)."""
        shards = np.searchsorted(self._ends, samples, side="right")
        found = []
        for number in np.unique(shards):
            places = np.flatnonzero(shards == number)
            start = self._ends[number] - self.rows[number]
            found.append((self.shard(int(number)), samples[places] - start, places))
        return found
