"""The index of a `dataset` folder, written last: its splits, its shards, and their checksums.

{split}-{i:05d}.tar       WebDataset samples
{split}-{i:05d}.parquet   the same without pixels
index.json                schema_version, image_size, class_names, splits: {split: [{shard, rows, bytes,
                          sha256}]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reptok.data.shards import Sample, parse_object

SCHEMA_VERSION = 1
SPLITS = ("train", "val")
INDEX = "index.json"
QUARANTINE = "quarantined.json"
"""In latents or tokens: the shards of the dataset that they lack, [{shard, rows, cause}]."""
EXCLUDED = "excluded.json"
"""In a dataset: the rows that trainings pass over, as twins of rows in earlier shards, {shard: [row]}."""
_SHARD = re.compile(r"(train|val)-\d{5,}")


@dataclass(frozen=True)
class ShardEntry:
    """One tar of a dataset: its name without suffix, its samples, and its file's size and SHA-256."""

    shard: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class DatasetIndex:
    """What a dataset holds.

    Attributes:
        image_size: Side of the images in pixels.
        class_names: Name of each label; None without classes.
        splits: The shards of each split that has samples, in order.
    """

    image_size: int
    class_names: tuple[str, ...] | None
    splits: Mapping[str, tuple[ShardEntry, ...]]

    @property
    def shards(self) -> list[tuple[str, ShardEntry]]:
        """(split, shard) of every shard, in order."""
        return [(split, entry) for split, entries in self.splits.items() for entry in entries]

    def as_json(self) -> dict[str, Any]:
        """The value of `index.json`."""
        names = None if self.class_names is None else list(self.class_names)
        splits = {split: [vars(entry) for entry in entries] for split, entries in self.splits.items()}
        return {
            "schema_version": SCHEMA_VERSION,
            "image_size": self.image_size,
            "class_names": names,
            "splits": splits,
        }


def shard_name(split: str, number: int) -> str:
    """Return the name of a shard, without suffix."""
    return f"{split}-{number:05d}"


def table_row(sample: Sample) -> dict[str, Any]:
    """Return the row of a sample in the parquet beside its tar; its `info` has width and height.

    Scores that the `info` may have become columns.
    """
    facts = {name: sample.info.get(name) for name in ("label", "subject", "width", "height")}
    scores = sample.info.get("scores")
    known = scores if isinstance(scores, dict) else {}
    columns = {str(name): float(value) for name, value in known.items() if isinstance(value, int | float)}
    return {**columns, "key": sample.key, "caption": sample.caption, **facts}


def parse_index(data: bytes, name: str = INDEX) -> DatasetIndex:
    """Read `index.json`.

    Raises:
        ValueError: It is damaged or of another schema version; the message names the key.
    """
    try:
        value = parse_object(data)
    except ValueError as error:
        raise ValueError(f"{name} is not readable ({error}); rerun the stage that made it") from error
    if value.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"{name} has schema version {value.get('schema_version')!r}, expected {SCHEMA_VERSION}; rerun "
            "the stage that made it"
        )
    size, names, splits = value.get("image_size"), value.get("class_names"), value.get("splits")
    if not isinstance(size, int) or not _counts(size) or size == 0:
        raise ValueError(f"{name}: image_size is {size!r}, a number of pixels is expected")
    if names is not None and not _texts(names):
        raise ValueError(f"{name}: class_names is neither null nor a list of texts")
    if not isinstance(splits, dict) or not set(splits) <= set(SPLITS):
        raise ValueError(f"{name}: splits must be of {', '.join(SPLITS)}")
    return DatasetIndex(
        image_size=size,
        class_names=None if names is None else tuple(names),
        splits={split: _entries(splits[split], split, name) for split in SPLITS if split in splits},
    )


def _entries(values: Any, split: str, name: str) -> tuple[ShardEntry, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{name}: split {split!r} is no list of shards")
    entries: list[ShardEntry] = []
    for value in values:
        fields = value if isinstance(value, dict) else {}
        shard, rows, size, digest = [fields.get(key) for key in ("shard", "rows", "bytes", "sha256")]
        if not (isinstance(shard, str) and _SHARD.fullmatch(shard) and shard.startswith(f"{split}-")):
            raise ValueError(f"{name}: {shard!r} is no name of a shard of {split!r}")
        if entries and shard <= entries[-1].shard and len(shard) <= len(entries[-1].shard):
            raise ValueError(f"{name}: shard {shard} does not come after {entries[-1].shard}")
        if not (_counts(rows) and _counts(size) and isinstance(digest, str)):
            raise ValueError(f"{name}: shard {shard} needs rows, bytes and sha256")
        entries.append(ShardEntry(shard, int(rows or 0), int(size or 0), digest))
    return tuple(entries)


def _counts(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _texts(values: Any) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, str) for value in values)
