"""Samples that trainings pass over: they lie in the shards, and no order of training reaches them.

A twin in another shard is known when all shards are written, and what is made from those stays aligned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from reptok.data.index import EXCLUDED
from reptok.data.remote import DataPath
from reptok.data.shards import parse_object


def read_excluded(dataset: DataPath) -> dict[str, list[int]]:
    """Return the row numbers by shard; none of a dataset without such samples.

    Raises:
        ValueError: The list is damaged.
    """
    path = dataset / EXCLUDED
    return parse_excluded(path.read_bytes(), str(path)) if path.is_file() else {}


def parse_excluded(content: bytes, path: str) -> dict[str, list[int]]:
    """Return the row numbers by shard from the bytes of a list, for storage that has no path.

    Raises:
        ValueError: The list is damaged.
    """
    found = parse_object(content)
    for shard, rows in found.items():
        fine = isinstance(rows, list) and all(type(row) is int and row >= 0 for row in rows)
        if not fine or any(later <= row for row, later in pairwise(rows)):
            raise ValueError(f"{path}: the rows of {shard} are not whole numbers in ascending order")
    return found


class Included:
    """The samples of a split that trainings read, numbered without gaps.

    Attributes:
        rows: Of each shard, those that are read.
    """

    def __init__(
        self, shards: Sequence[str], rows: Sequence[int], excluded: Mapping[str, Sequence[int]]
    ) -> None:
        """Number the samples.

        Args:
            shards: Names, in order.
            rows: Samples that each holds.
            excluded: Row numbers of those that are passed over, by shard.

        Raises:
            ValueError: A row lies behind the last one of its shard.
        """
        without = [len(excluded.get(shard, ())) for shard in shards]
        for shard, count in zip(shards, rows, strict=True):
            if shard in excluded and excluded[shard] and excluded[shard][-1] >= count:
                raise ValueError(f"{EXCLUDED} names row {excluded[shard][-1]} of {shard}, which has {count}")
        self.rows = [count - gone for count, gone in zip(rows, without, strict=True)]
        starts = np.cumsum([0, *rows])
        gone = [np.asarray(excluded.get(shard, ()), np.int64) + start
                for shard, start in zip(shards, starts, strict=False)]  # fmt: skip
        numbers = np.concatenate([np.empty(0, np.int64), *gone])
        self._before = numbers - np.arange(len(numbers))

    def stored(self, samples: np.ndarray) -> np.ndarray:
        """Return the numbers, int64 (B,), that the shards have for samples of these numbers."""
        if not len(self._before):
            return samples
        return samples + np.searchsorted(self._before, samples, side="right")
