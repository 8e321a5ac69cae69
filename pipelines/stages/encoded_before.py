"""What an earlier artifact has of the rows of a shard, so that no network need see their pictures again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import sha256

import numpy as np
import pyarrow.parquet as pq

from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import sibling
from pipelines.dag.workspace import Workspace
from pipelines.stages.tables import in_order
from reptok.data.blocks import KEYS, iterate_blocks, unpack_keys
from reptok.data.shards import read_samples

READERS = 16
MOST = 4
"""Earlier shards that are read for one."""

Arrays = dict[str, np.ndarray]
Row = tuple[str, Arrays]


class EncodedBefore:
    """Rows of an earlier artifact whose pictures are the same, given in the order of the keys.

    Attributes:
        rows: how many were given.
    """

    def __init__(self, rows: Iterator[Row], unchanged: frozenset[str]) -> None:
        self._coming, self._unchanged = rows, unchanged
        self._next = next(self._coming, None)
        self.rows = 0

    @classmethod
    def of(cls, dataset: Artifact, shard: str, out: Workspace) -> EncodedBefore:
        """Look for an earlier artifact with the same settings, and for the dataset that it was made from."""
        last = out.earlier.newest() if out.earlier else None
        before = sibling(last, dataset.kind) if last else None
        if last is None or before is None:
            return cls(iter(()), frozenset())
        names = [name for name in _overlapping(before, dataset, shard) if f"{name}.tar" in last.files()]
        old = {key: digest for name in names for key, digest in _pictures(before, name).items()}
        new = _pictures(dataset, shard) if old else {}
        rows = (row for name in names for row in _rows(last, name))
        return cls(rows, frozenset(key for key in new if old.get(key) == new[key]))

    def completed(
        self, keys: Sequence[str], images: np.ndarray, encode: Callable[[np.ndarray], Arrays]
    ) -> Arrays:
        """The arrays of a batch, of which only pictures that are new are encoded.

        Args:
            keys: of the batch, behind those of the batch before.
            images: uint8 (B, S, S, 3).
            encode: makes arrays (B', ...) of some of them.
        """
        known = [self._take(key) if key in self._unchanged else None for key in keys]
        fresh = [place for place, row in enumerate(known) if row is None]
        made = encode(images[fresh]) if fresh else {}
        if len(fresh) == len(keys):
            return made
        self.rows += len(keys) - len(fresh)
        numbers = dict(zip(fresh, range(len(fresh)), strict=True))
        names = next(row for row in known if row is not None)
        return {
            name: np.stack(
                [made[name][numbers[i]] if row is None else row[name] for i, row in enumerate(known)]
            )
            for name in names
        }

    def _take(self, key: str) -> Arrays | None:
        while self._next is not None and self._next[0] < key:
            self._next = next(self._coming, None)
        return self._next[1] if self._next is not None and self._next[0] == key else None


def _overlapping(before: Artifact, dataset: Artifact, shard: str) -> list[str]:
    """Shards of a dataset in whose ranges of keys those of a shard of another may be, in their order.

    Where ranges say little, as those of a WebDataset's tars, that of the same name.
    """
    own = _range(dataset, f"{shard}.parquet")
    ranges = _ranges(before.url, before.kind, shard.partition("-")[0])
    found = [name for name, (low, high) in ranges if own and low <= own[1] and own[0] <= high]
    return found if len(found) <= MOST else [name for name in found if name == shard]


@lru_cache(4)
def _ranges(url: str, kind: str, split: str) -> list[tuple[str, tuple[str, str]]]:
    """The first and the last key of each shard of a split that has samples."""
    dataset = Artifact(kind, url.rpartition("/")[2], url)
    tables = in_order(dataset.files(f"{split}-*.parquet"))
    with ThreadPoolExecutor(READERS) as readers:
        found = zip(tables, readers.map(partial(_range, dataset), tables), strict=True)
        return [(table.removesuffix(".parquet"), keys) for table, keys in found if keys]


def _range(dataset: Artifact, table: str) -> tuple[str, str] | None:
    with dataset.folder.open(table) as file:
        known = pq.ParquetFile(file)
        column = known.schema_arrow.names.index("key")
        groups = range(known.metadata.num_row_groups)
        keys = [known.metadata.row_group(group).column(column).statistics for group in groups]
    return (keys[0].min, keys[-1].max) if known.metadata.num_rows else None


def _rows(latents: Artifact, shard: str) -> Iterator[Row]:
    with latents.open(f"{shard}.tar") as file:
        for block in iterate_blocks(file):
            arrays = {name: values for name, values in block.items() if name != KEYS}
            for number, key in enumerate(unpack_keys(block[KEYS])):
                yield key, {name: values[number] for name, values in arrays.items()}


def _pictures(dataset: Artifact, shard: str) -> dict[str, bytes]:
    """The digest of each picture's file by key."""
    with dataset.folder.open(f"{shard}.tar") as file:
        return {sample.key: sha256(sample.jpg).digest() for sample in read_samples(file)}
