"""An evenly spread part of a dataset's split, for evaluations: what is in it, and its pixels by batch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelines.dag.artifact import Artifact
from reptok.data.columns import SAMPLES, read_table
from reptok.data.excluded import parse_excluded
from reptok.data.index import EXCLUDED
from reptok.data.rows import ImageRows
from reptok.data.transforms import load_image

T = TypeVar("T")

SHARDS = 64
"""Shards to read: of a split with thousands, evenly spread ones, and more where these hold too little."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sample, without its pixels; `subject` is what it shows, where the dataset says so."""

    key: str
    caption: str
    label: int | None
    subject: str | None
    shard: str
    row: int

    @property
    def seed(self) -> int:
        """Seed of the noise of whatever is made from this sample: a function of its key, not of its batch."""
        return zlib.crc32(self.key.encode())


class DatasetView:
    """`limit` samples of a split that trainings do not pass over, evenly spread, in key order.

    There are fewer only if the split has no more.
    """

    def __init__(self, dataset: Artifact, split: str, limit: int, shards: int = SHARDS):
        """Read the tables of `shards` evenly spread shards, or of more if these do not hold `limit` samples.

        Raises:
            ValueError: if the split has no samples.
        """
        self.dataset, self.split = dataset, split
        index = dataset.read_json("index.json")
        self.image_size: int = index["image_size"]
        self.class_names: list[str] | None = index.get("class_names")
        self._excluded: dict[str, list[int]] = {}
        if dataset.files(EXCLUDED):
            self._excluded = parse_excluded(dataset.read_bytes(EXCLUDED), dataset.url_of(EXCLUDED))
        rows = {entry["shard"]: entry["rows"] for entry in index["splits"].get(split, ())}
        tables = dataset.files(f"{split}-*.parquet")
        while shards < len(tables) and self._samples(_spread(tables, shards), rows) < limit:
            shards *= 2
        examples = [row for name in _spread(tables, shards) for row in self._rows(name)]
        if not examples:
            raise ValueError(
                f"dataset {dataset.fingerprint} has no {split!r} samples to evaluate on: "
                "raise its share of validation samples or give it more images"
            )
        self.examples: list[Example] = _spread(examples, limit)
        self._images = lru_cache(maxsize=4)(lambda name: ImageRows(dataset.local_path(name)))

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def subjects(self) -> list[str]:
        """What the samples show, sorted, each once; empty where the dataset does not say."""
        return sorted({example.subject for example in self.examples if example.subject is not None})

    def images(self, positions: Sequence[int]) -> Tensor:
        """Pixels of some samples, float (B, 3, S, S) in [-1, 1]."""
        chosen = [self.examples[position] for position in positions]
        jpgs = [self._images(example.shard).jpg(example.row) for example in chosen]
        return torch.stack([load_image(jpg, self.image_size) for jpg in jpgs])

    def batches(self, batch_size: int) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (positions, images (B, 3, S, S)) over all samples in order."""
        for start in range(0, len(self), batch_size):
            positions = list(range(start, min(start + batch_size, len(self))))
            yield positions, self.images(positions)

    def _samples(self, tables: Sequence[str], rows: Mapping[str, int]) -> int:
        names = [table.removesuffix(".parquet") for table in tables]
        return sum(rows.get(name, 0) - len(self._excluded.get(name, ())) for name in names)

    def _rows(self, table: str) -> Iterator[Example]:
        with self.dataset.open(table) as file:
            rows = read_table(file, SAMPLES, table, ["key", "caption", "label", "subject"]).to_pylist()
        name = table.removesuffix(".parquet")
        gone = set(self._excluded.get(name, ()))
        for number, row in enumerate(rows):
            if number in gone:
                continue
            label, subject = row["label"], row["subject"]
            if subject is None and label is not None:
                subject = self.class_names[label] if self.class_names else str(label)
            yield Example(key=row["key"], caption=row["caption"], label=label, subject=subject,
                          shard=f"{name}.tar", row=number)  # fmt: skip


def _spread(items: list[T], limit: int) -> list[T]:
    """At most `limit` of the items, evenly spread, in order."""
    if len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]
