"""Random access to the rows of shards: only what is asked for is read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from reptok.data.blocks import KEYS, BlockEntry, index_blocks, unpack_keys
from reptok.data.remote import DataPath, RemoteFile, file_at
from reptok.data.tar import Member, index_members, opened

_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "I64": np.int64}


class Rows(Protocol):
    """One shard."""

    def __len__(self) -> int: ...


S = TypeVar("S", bound=Rows)


class Stored(NamedTuple):
    """An array in a file: where its bytes begin, what they are."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many they are."""
        return prod(self.shape) * self.dtype.itemsize


class BlockRows:
    """The rows of one shard of packed blocks (`latents`, `tokens`).

    Attributes:
        file: The shard's.
    """

    def __init__(self, path: DataPath):
        """Index the shard at `path`; headers alone are read.

        Raises:
            ValueError: The archive or a block's header is damaged.
        """
        self.file = file_at(path)
        entries = index_blocks(path)
        self._rows = np.array([entry.rows for entry in entries], np.int64)
        self._ends = np.cumsum(self._rows)
        self._blocks = [self._arrays(entry) for entry in entries]
        self._columns: dict[str, tuple[Stored, int, np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def keys(self) -> list[str]:
        """Return every row's key, in order."""
        return [key for block in self._blocks for key in unpack_keys(self._whole(block[KEYS]))]

    def find(self, name: str, rows: np.ndarray, variants: np.ndarray) -> tuple[Stored, np.ndarray]:
        """Say where samples lie.

        Args:
            name: The array's name in the blocks, which store it as (n, variants, ...).
            rows: Row numbers in the shard, int (k,), k at least 1.
            variants: Which variant of each, int (k,); 0 is the image, 1 its mirror image.

        Returns:
            What one sample is, (...); where the bytes of each begin in the file, int64 (k,).

        Raises:
            ValueError: The blocks hold no such array, not all the same, or without such a variant.
        """
        if name not in self._columns:
            self._columns[name] = self._column(name)
        one, stored, begins = self._columns[name]
        if variants.max() >= stored:
            raise ValueError(
                f"{self.file.path} holds {stored} variants of {name!r}, and {variants.max() + 1} are asked "
                "for; rerun the stage that made it with mirror images"
            )
        blocks = np.searchsorted(self._ends, rows, side="right")
        in_block = rows - (self._ends[blocks] - self._rows[blocks])
        return one, begins[blocks] + (in_block * stored + variants) * one.bytes

    def _column(self, name: str) -> tuple[Stored, int, np.ndarray]:
        """What a sample of an array is, how many variants it has, and where each block's part begins."""
        missing = [block for block in self._blocks if name not in block]
        if missing:
            raise ValueError(f"{self.file.path} holds no {name!r} (it has: {', '.join(missing[0])})")
        found = [block[name] for block in self._blocks]
        kinds = {(stored.dtype, stored.shape[1:]) for stored in found}
        if len(kinds) != 1 or len(found[0].shape) < 2:
            raise ValueError(
                f"{self.file.path}: {name!r} is {sorted(map(str, kinds))}, and one type and shape (variants, "
                "...) is expected; rerun the stage that made it"
            )
        ((dtype, shape),) = kinds
        return Stored(0, dtype, shape[1:]), shape[0], np.array([stored.offset for stored in found])

    def _whole(self, stored: Stored) -> np.ndarray:
        data = self.file.read(stored.offset, stored.bytes)
        return np.frombuffer(data, stored.dtype).reshape(stored.shape)

    def _arrays(self, block: BlockEntry) -> dict[str, Stored]:
        """Read a block's header."""
        length = int.from_bytes(self.file.read(block.offset, 8), "little")
        start = 8 + length
        try:
            header = json.loads(self.file.read(block.offset + 8, length))
            header.pop("__metadata__", None)
            arrays = {}
            for name, entry in header.items():
                begin, end = (int(number) for number in entry["data_offsets"])
                shape = tuple(int(number) for number in entry["shape"])
                stored = Stored(block.offset + start + begin, np.dtype(_DTYPES[entry["dtype"]]), shape)
                if begin < 0 or end - begin != stored.bytes or start + end > block.size:
                    raise ValueError(f"{name} lies elsewhere than its size says")
                if min(shape[1:], default=1) < 1:
                    raise ValueError(f"{name} has samples of no bytes")
                arrays[name] = stored
            if any(stored.shape[:1] != (block.rows,) for stored in arrays.values()):
                raise ValueError("its arrays have different rows")
        except (
            ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            raise ValueError(
                f"{self.file.path}:{block.name} is damaged ({error!r}); rerun the stage that made it"
            ) from error
        return arrays


class ImageRows:
    """The JPEG files of one shard of `dataset`.

    Attributes:
        file: The shard's.
        offsets: Where each begins in it, int64 (n,).
        sizes: Their bytes, int64 (n,).
    """

    def __init__(self, path: DataPath):
        """Index the shard at `path`; headers alone are read, of a remote one all, once on each machine."""
        self.file = file_at(path)
        file = self.file
        index = file.kept("jpgs", self._index) if isinstance(file, RemoteFile) else self._index()
        self.offsets, self.sizes = np.frombuffer(index, np.int64).reshape(2, -1)

    def __len__(self) -> int:
        return len(self.offsets)

    def keys(self) -> list[str]:
        """Read every row's key again, in order: they take more memory than all else."""
        return [member.key for member in self._members()]

    def jpg(self, row: int) -> bytes:
        """Return the file's bytes of one row."""
        return self.file.read(int(self.offsets[row]), int(self.sizes[row]))

    def _index(self) -> bytes:
        """Where each begins, and then their bytes."""
        found = [(member.offset, member.size) for member in self._members()]
        return np.array(found, np.int64).reshape(-1, 2).T.tobytes()

    def _members(self) -> list[Member]:
        if isinstance(self.file, RemoteFile):  # each part has a header
            self.file.fetch_all()
        with opened(self.file.path) as (file, name):
            return [member for member in index_members(file, name) if member.extension == "jpg"]


class Shards(Generic[S]):
    """Shards opened at first use and addressed by a sample index that runs over all of them."""

    def __init__(
        self,
        paths: Sequence[DataPath],
        rows: Sequence[int],
        open_shard: Callable[[DataPath], S],
        keep: int | None = None,
    ):
        """Address the samples of `paths`, which hold `rows` samples each; the `keep` last used stay open."""
        self.paths, self.rows, self._keep = list(paths), list(rows), keep
        self._ends = np.cumsum(self.rows)
        self._open_shard = open_shard
        self._opened: dict[int, S] = {}
        self._lock = threading.Lock()

    def shard(self, number: int) -> S:
        """Open a shard, once.

        Raises:
            ValueError: It does not hold the promised number of rows.
        """
        with self._lock:  # readers and whoever fetches ahead share it
            shard = self._opened.pop(number, None)
            if shard is not None:
                self._opened[number] = shard
        if shard is None:
            shard = self._open_shard(self.paths[number])
            if len(shard) != self.rows[number]:
                raise ValueError(
                    f"{self.paths[number]} holds {len(shard)} rows where the dataset's index promises "
                    f"{self.rows[number]}; rerun the stage that made it on this dataset"
                )
            with self._lock:
                self._opened[number] = shard
                if self._keep is not None and len(self._opened) > self._keep:
                    del self._opened[next(iter(self._opened))]
        return shard

    def locate(self, samples: np.ndarray) -> list[tuple[S, np.ndarray, np.ndarray]]:
        """Group sample indices by shard: (shard, row numbers in it, where these stand in `samples`)."""
        shards = np.searchsorted(self._ends, samples, side="right")
        found = []
        for number in np.unique(shards):
            places = np.flatnonzero(shards == number)
            start = self._ends[number] - self.rows[number]
            found.append((self.shard(int(number)), samples[places] - start, places))
        return found
