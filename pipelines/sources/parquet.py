"""Parquet files of pictures, as the hub's data sets store them: `image` {bytes, path}, `label`, and texts.

The path beside the bytes is a name and is never opened. Class names stand in the files' own metadata.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.metadata import TEXT_COLUMNS
from pipelines.sources.parquet_claims import check_footer, largest_page
from pipelines.sources.source import (
    MAX_CLASSES,
    OUTSIDE,
    OutsideError,
    Part,
    Picture,
    Source,
    clean_caption,
    clean_label,
    opened,
    split_of_path,
)

IMAGE, LABEL = "image", "label"
BATCH, BATCH_BYTES, LABELS = 16, 2**27, 2**16
"""Rows at a time, and bytes that they may come to where one large page serves them all; labels at a time."""
MAX_NAMES, FEW_ROWS = 100_000, 2**22
NO_CLASS = -2
"""Stands for the label of a row whose column of labels has a type that cannot be a class."""


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
                with _opened(self.folder, name) as file:
                    self.class_names = _class_names(file.schema_arrow)
            except ValueError as error:
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
                with _opened(self.folder, name) as file:
                    count = file.table.metadata.num_rows
                    names = _class_names(file.schema_arrow)
                if names and names != self.class_names:
                    raise ValueError("it has other class names than the files before")
            except ValueError as error:
                reason = OUTSIDE if isinstance(error, OutsideError) else "unreadable_file"
                self.faults.append(f"{name}: {error}")
                parts.append(Part(name, 1, {"file": name, "refused": reason}))
                continue
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                place = {"file": name, "start": start, "stop": stop}
                parts.append(Part(f"{name}:{start}", stop - start, place))
        return parts

    def digest(self) -> str:
        digest = sha256()
        for name in self.files:
            size = (self.folder / name).lstat().st_size
            digest.update(f"{name}\0{size}\0".encode("utf-8", "replace"))
        return digest.hexdigest()[:16]

    def _count_classes(self) -> None:
        """Learn the classes from the labels of all files: words are names, numbers only count."""
        labels: set[Any] = set()
        for name in self.files:
            try:
                with _opened(self.folder, name) as file:
                    if _tells_classes(file.schema_arrow):
                        labels |= _labels(file, MAX_NAMES - len(labels))
            except ValueError:
                continue
        words = sorted(label for label in labels if isinstance(label, str))
        numbers = [label for label in labels if isinstance(label, int) and 0 <= label < MAX_CLASSES]
        self.class_names = tuple(words) or None
        self.num_classes = max(numbers, default=-1) + 1


def read(folder: Path, names: tuple[str, ...] | None, place: dict[str, Any]) -> Iterator[Picture]:
    """Yield the pictures of a part; see `source.Read`."""
    name = place["file"]
    if place.get("refused"):
        yield Picture(name, reason=place["refused"])
        return
    split = split_of_path(name)
    try:
        for number, row in enumerate(_rows(folder, name, place["start"], place["stop"]), place["start"]):
            yield _picture(f"{name}:{number}", row, split, names)
    except ValueError as error:
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


@dataclass
class _File:
    """An open file of pictures: pyarrow's reader, and the bytes for the pages' headers."""

    table: pq.ParquetFile
    data: mmap.mmap

    @property
    def schema_arrow(self) -> pa.Schema:
        return self.table.schema_arrow

    @property
    def columns(self) -> list[str]:
        """Of what is read: the bytes of the image and not its path, label and texts; never a list."""
        schema = self.schema_arrow
        image = f"{IMAGE}.bytes" if pa.types.is_struct(schema.field(IMAGE).type) else IMAGE
        label = [LABEL] if _tells_classes(schema) else []
        return [image, *label, *(name for name in TEXT_COLUMNS if _is_text(_kind(schema, name)))]

    def batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """The rows of a row group, a few at a time."""
        rows = self.batch_rows(group, self.columns, BATCH)
        foreign = LABEL in self.schema_arrow.names and LABEL not in self.columns
        for batch in self.table.iter_batches(rows, row_groups=[group], columns=self.columns):
            yield batch.append_column(LABEL, pa.repeat(NO_CLASS, len(batch))) if foreign else batch

    def batch_rows(self, group: int, columns: list[str], most: int) -> int:
        """Rows to read at a time: one page may serve them all, by a dictionary or by what they share."""
        page = largest_page(self.data, self.table.metadata, group, columns)
        return max(1, min(most, BATCH_BYTES // max(page, 1)))


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[_File]:
    """Open a file and check that it has pictures; pages are read as they are needed."""
    with opened(folder, name) as raw:
        if not raw.seek(0, 2):
            raise ValueError("it is empty")
        with mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as data:
            raw.seek(0)
            check_footer(data)
            try:
                with pq.ParquetFile(raw, buffer_size=2**20, pre_buffer=False) as table:
                    _check(table, len(data))
                    yield _File(table, data)
            except MemoryError:
                raise  # ours: what a file may claim was refused before
            except (pa.ArrowException, NotImplementedError) as error:
                raise ValueError(str(error)) from error


def _check(table: pq.ParquetFile, size: int) -> None:
    if table.metadata.num_rows > max(size, FEW_ROWS):
        raise ValueError(f"{table.metadata.num_rows} rows in {size} bytes: there is no picture in so little")
    schema = table.schema_arrow
    if schema.names.count(IMAGE) != 1:
        raise ValueError(f"not one column {IMAGE!r} (it has: {', '.join(schema.names)[:200]})")
    kind = schema.field(IMAGE).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(
            f"column {IMAGE!r} is {schema.field(IMAGE).type}; bytes or {{bytes, path}} is expected"
        )


def _labels(file: _File, most: int) -> set[Any]:
    """The different labels of a file, at most so many."""
    found: set[Any] = set()
    for group in range(file.table.metadata.num_row_groups):
        rows = file.batch_rows(group, [LABEL], LABELS)
        for batch in file.table.iter_batches(rows, row_groups=[group], columns=[LABEL]):
            found |= set(batch.column(0).unique().to_pylist())
            if len(found) > most:
                raise ValueError(f"more than {MAX_NAMES} classes")
    return found


@dataclass
class _Cursor:
    """Where reading stands in a file: the next part of a row group goes on there instead of at its start."""

    key: tuple[Any, ...]
    position: int
    rows: Iterator[pa.RecordBatch]
    left: pa.RecordBatch | None = None


_reading = threading.local()


def _rows(folder: Path, name: str, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows [start, stop) of a file; parts that follow each other in one process read it once."""
    with opened(folder, name) as file:
        facts = os.fstat(file.fileno())
    key = (str(folder), name, facts.st_size, facts.st_mtime_ns)
    cursor: _Cursor | None = getattr(_reading, "cursor", None)
    _reading.cursor = None  # given back below, once this part was read to its end
    if cursor is None or cursor.key != key or cursor.position > start:
        batches = _batches(folder, name, start)
        cursor = _Cursor(key, next(batches), batches)
    while cursor.position < stop:
        batch = cursor.left or next(cursor.rows, None)
        if batch is None:
            return
        skipped = min(max(start - cursor.position, 0), batch.num_rows)
        taken = min(batch.num_rows, stop - cursor.position)
        if skipped < taken:
            yield from batch.slice(skipped, taken - skipped).to_pylist()
        cursor.position += taken
        cursor.left = batch.slice(taken) if taken < batch.num_rows else None
    _reading.cursor = cursor


def _batches(folder: Path, name: str, start: int) -> Iterator[Any]:
    """The first row of the row group that holds row `start`, then the batches from there to the end."""
    with _opened(folder, name) as file:
        begin = first = 0
        sizes = [
            file.table.metadata.row_group(group).num_rows
            for group in range(file.table.metadata.num_row_groups)
        ]
        while first < len(sizes) - 1 and begin + sizes[first] <= start:
            begin += sizes[first]
            first += 1
        yield begin
        for group in range(first, len(sizes)):
            yield from file.batches(group)


def _tells_classes(schema: pa.Schema) -> bool:
    kind = _kind(schema, LABEL)
    return pa.types.is_integer(kind) or _is_text(kind)


def _kind(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column; null where it is missing or doubled."""
    return schema.field(name).type if schema.names.count(name) == 1 else pa.null()


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


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
