"""Parquet files of pictures, as the hub's data sets store them: `image` {bytes, path}, `label`, and texts.

The path beside the bytes is a name and is never opened. Class names stand in the files' own metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.metadata import TEXT_COLUMNS
from pipelines.sources.source import (
    MAX_CLASSES,
    Part,
    Picture,
    Source,
    clean_caption,
    clean_label,
    split_of_path,
)

IMAGE, LABEL = "image", "label"
BATCH = 16
UNREADABLE = (pa.ArrowException, OSError, ValueError, MemoryError, NotImplementedError)
"""What reading a damaged or hostile file raises."""


@dataclass
class ParquetSource(Source):
    """The parquet files of a folder in the order of their names; files of a test split are left out.

    Raises:
        ValueError: No file has pictures, or they disagree on the classes.
    """

    files: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        paths = [path for path in sorted(self.folder.rglob("*.parquet")) if not path.name.startswith(".")]
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        self.files = [name for name in names if split_of_path(name) != "test"]
        for name in self.files:  # the hub's files tell the names in the first one: no other is opened then
            try:
                with _opened(self.folder / name) as file:
                    self.class_names = _class_names(file.schema_arrow)
            except UNREADABLE as error:
                self.faults.append(f"{name}: {error}")
            if self.class_names:
                break
        if len(self.faults) == len(self.files):
            raise ValueError(
                f"'{self.folder}' has no parquet file of pictures outside of a test split; "
                + "; ".join(self.faults)
            )
        self.faults.clear()  # `parts` names them again, with those of the other files
        if self.class_names is None:
            self._count_classes()
        self.num_classes = len(self.class_names) if self.class_names else self.num_classes

    def parts(self, rows: int) -> list[Part]:
        parts = []
        for name in self.files:
            try:
                with _opened(self.folder / name) as file:
                    count = file.metadata.num_rows
                    names = _class_names(file.schema_arrow)
                if names and names != self.class_names:
                    raise ValueError("it has other class names than the files before")
            except UNREADABLE as error:
                self.faults.append(f"{name}: {error}")
                parts.append(Part(name, 1, {"file": name, "refused": True}))
                continue
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                place = {"file": name, "start": start, "stop": stop}
                parts.append(Part(f"{name}:{start}", stop - start, place))
        return parts

    def digest(self) -> str:
        digest = sha256()
        for name in self.files:
            size = (self.folder / name).stat().st_size
            digest.update(f"{name}\0{size}\0".encode("utf-8", "replace"))
        return digest.hexdigest()[:16]

    def _count_classes(self) -> None:
        """Learn the classes from the labels of all files: words are names, numbers only count."""
        labels: set[Any] = set()
        for name in self.files:
            try:
                with _opened(self.folder / name) as file:
                    if _tells_classes(file.schema_arrow):
                        labels |= set(file.read(columns=[LABEL]).column(LABEL).unique().to_pylist())
            except UNREADABLE:
                continue
        words = sorted(label for label in labels if isinstance(label, str))
        numbers = [label for label in labels if isinstance(label, int) and 0 <= label < MAX_CLASSES]
        self.class_names = tuple(words) or None
        self.num_classes = max(numbers, default=-1) + 1


def read(folder: Path, names: tuple[str, ...] | None, place: dict[str, Any]) -> Iterator[Picture]:
    """Yield the pictures of a part; see `source.Read`."""
    name = place["file"]
    if place.get("refused"):
        yield Picture(name, reason="unreadable_file")
        return
    split = split_of_path(name)
    try:
        with _opened(folder / name) as file:
            for number, row in enumerate(_rows(file, place["start"], place["stop"]), place["start"]):
                yield _picture(f"{name}:{number}", row, split, names)
    except UNREADABLE as error:
        raise ValueError(f"{name}: {error}") from error


def _picture(name: str, row: dict[str, Any], split: str, names: tuple[str, ...] | None) -> Picture:
    image, label, subject = row[IMAGE], row.get(LABEL), None
    data = image.get("bytes") if isinstance(image, dict) else image
    try:
        if isinstance(label, str):
            label = names.index(label) if names else None
        label = clean_label(label)
        subject = names[label] if names and label is not None else None
    except (ValueError, IndexError):
        return Picture(name, reason="label_out_of_range")
    texts = [row[column] for column in TEXT_COLUMNS if isinstance(row.get(column), str)]
    caption = clean_caption(texts[0]) if texts else None
    return Picture(name, data or b"", "" if data else "no_image", split, label, subject, caption)


def _opened(path: Path) -> pq.ParquetFile:
    """Open a file and check that it has pictures; pages are read as they are needed."""
    file = pq.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    schema = file.schema_arrow
    if schema.names.count(IMAGE) != 1:
        raise ValueError(f"not one column {IMAGE!r} (it has: {', '.join(schema.names)[:200]})")
    kind = schema.field(IMAGE).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(
            f"column {IMAGE!r} is {schema.field(IMAGE).type}; bytes or {{bytes, path}} is expected"
        )
    return file


def _rows(file: pq.ParquetFile, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows [start, stop) of a file; only the row groups that hold them are read."""
    groups: list[int] = []
    begin = before = 0
    for group in range(file.metadata.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        if begin < stop and end > start:
            before = begin if not groups else before
            groups.append(group)
        begin = end
    if not groups:
        return
    columns = [c for c in (IMAGE, LABEL, *TEXT_COLUMNS) if c in file.schema_arrow.names]
    for batch in file.iter_batches(BATCH, row_groups=groups, columns=columns):
        after = before + batch.num_rows
        if after > start and before < stop:
            yield from batch.slice(max(start - before, 0), min(stop, after) - max(start, before)).to_pylist()
        before = after
        if before >= stop:
            return


def _tells_classes(schema: pa.Schema) -> bool:
    kind = schema.field(LABEL).type if schema.names.count(LABEL) == 1 else pa.null()
    return pa.types.is_integer(kind) or pa.types.is_string(kind)


def _class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Class names as the hub's writer stores them in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[LABEL]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(clean_caption(name) for name in names)
    return None
