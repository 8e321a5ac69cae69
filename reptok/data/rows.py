"""Random access to the rows of shards: tars are memory-mapped, so only the rows asked for are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from reptok.data.blocks import KEYS, BlockEntry, index_blocks, unpack_keys
from reptok.data.tar import index_members, opened

_DTYPES = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "I64": np.int64}


class Rows(Protocol):
    """One shard."""

    def __len__(self) -> int: ...


S = TypeVar("S", bound=Rows)


class BlockRows:
    """The rows of one shard of packed blocks (`latents`, `tokens`)."""

    def __init__(self, path: Path):
        """Index the shard at `path`.

        Raises:
            ValueError: The archive or a block's header is damaged.
        """
        self.path = path
        # As a plain array: every slice of a memmap object runs Python code.
        self._bytes = np.memmap(path, np.uint8, "r").view(np.ndarray)
        entries = index_blocks(path)
        self._ends = np.cumsum([entry.rows for entry in entries])
        self._blocks = [self._arrays(entry) for entry in entries]

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def keys(self) -> list[str]:
        """Return every row's key, in order."""
        return [key for block in self._blocks for key in unpack_keys(block[KEYS])]

    def locate(self, name: str, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Group row numbers by block.

        Args:
            name: The array's name in the blocks.
            rows: Row numbers in the shard, int (k,).

        Yields:
            The block's array as it is stored, (n, variants, ...), variant 0 being the image and 1 its mirror
            image; the row numbers in it; where these stand in `rows`.

        Raises:
            ValueError: The blocks hold no such array.
        """
        blocks = np.searchsorted(self._ends, rows, side="right")
        for number in np.unique(blocks):
            if name not in self._blocks[number]:
                raise ValueError(f"{self.path} holds no {name!r} (it has: {', '.join(self._blocks[number])})")
            array, places = self._blocks[number][name], np.flatnonzero(blocks == number)
            yield array, rows[places] - (self._ends[number] - len(array)), places

    def _arrays(self, block: BlockEntry) -> dict[str, np.ndarray]:
        """Return the arrays of a block, as views of the file."""
        inside = self._bytes[block.offset : block.offset + block.size]
        start = 8 + int.from_bytes(inside[:8].tobytes(), "little")
        try:
            header = json.loads(inside[8:start].tobytes())
            header.pop("__metadata__", None)
            arrays = {
                name: inside[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
                .view(_DTYPES[entry["dtype"]])
                .reshape(entry["shape"])
                for name, entry in header.items()
            }
            if any(len(array) != block.rows for array in arrays.values()):
                raise ValueError("its arrays have different rows")
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{self.path}:{block.name} is damaged ({error!r}); rerun the stage that made it"
            ) from error
        return arrays


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
