"""Parquet files of pictures, as the hub's data sets store them: `image` {bytes, path}, `label`, and texts.

The path beside the bytes is a name and is never opened. Class names stand in the files' own metadata.
"""

from __future__ import annotations

import atexit
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.held_out import Chunk, divided, kept
from pipelines.sources.metadata import first_text
from pipelines.sources.parquet_claims import check_footer, largest_page
from pipelines.sources.parquet_columns import IMAGES, LABEL, Columns, check, class_names, tells_classes
from pipelines.sources.source import (
    MAX_CLASSES,
    OUTSIDE,
    OutsideError,
    Part,
    Picture,
    Source,
    clean_label,
    files_digest,
    files_to_read,
    opened,
    shown,
    split_of_path,
)
from reptok.data.keys import key_of

BATCH, BATCH_BYTES, LABELS = 16, 2**27, 2**16
"""Rows at a time, and bytes that they may come to where one large page serves them all; labels at a time."""
MAX_NAMES = 100_000
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
        deep: list[str] = []
        self.files = files_to_read(self.folder, ".parquet", deep)
        self.splits = frozenset(map(split_of_path, self.files))
        texts: set[str] = set()
        for name in self.files:  # the hub's files tell the names in the first one: no other is opened then
            try:
                with _opened(self.folder, name) as file:
                    self.class_names = class_names(file.schema_arrow)
                    texts |= set(self.fields) & set(file.schema_arrow.names)
            except ValueError as error:
                self.faults.append(f"{name}: {error}")
            if self.class_names:
                break
        if len(self.faults) == len(self.files):
            raise ValueError(
                f"'{self.folder}' has no parquet file of pictures outside of a test split; "
                + "; ".join(self.faults)
            )
        self.captioned = None if texts else 0
        self.faults = deep  # `parts` names the others again, with those of the other files
        if self.class_names is None:
            self._count_classes()
        self.num_classes = len(self.class_names) if self.class_names else self.num_classes

    def parts(self, rows: int, val_fraction: float) -> list[Part]:
        chunks: list[Chunk] = []
        for name in self.files:
            split = split_of_path(name) if self.own_split else ""
            try:
                with _opened(self.folder, name) as file:
                    count = file.table.metadata.num_rows
                    names = class_names(file.schema_arrow)
                if names and names != self.class_names:
                    raise ValueError("it has other class names than the files before")
            except ValueError as error:
                reason = OUTSIDE if isinstance(error, OutsideError) else "unreadable_file"
                self.faults.append(f"{name}: {error}")
                chunks.append(Chunk(name, 1, {"file": name, "refused": reason}, tuple, split, name))
                continue
            for start in range(0, count, rows):
                stop = min(start + rows, count)
                place = {"file": name, "start": start, "stop": stop, "fields": self.fields, "key": self.key}
                keys = partial(_keys, name, start, stop)
                chunks.append(Chunk(name, stop - start, place, keys, split, f"{name}:{start}"))
        return divided(chunks, rows, val_fraction)

    def digest(self) -> str:
        return files_digest(self.folder, self.files)

    def _count_classes(self) -> None:
        """Learn the classes from the labels of all files: words are names, numbers only count."""
        labels: set[Any] = set()
        for name in self.files:
            try:
                with _opened(self.folder, name) as file:
                    if tells_classes(file.schema_arrow):
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
        yield Picture(shown(name), reason=place["refused"])
        return
    split, columns = split_of_path(name), Columns(tuple(place["fields"]), place["key"])
    start, stop = place["start"], place["stop"]
    try:
        for number, row in enumerate(_rows(folder, name, columns, start, stop), start):
            if kept(_key(name, number), place):
                yield _picture(f"{name}:{number}", row, split, names, columns)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _key(name: str, number: int) -> str:
    return key_of(f"{name}:{number}")


def _keys(name: str, start: int, stop: int) -> Iterator[str]:
    return (_key(name, number) for number in range(start, stop))


def _picture(
    name: str, row: dict[str, Any], split: str, names: tuple[str, ...] | None, columns: Columns
) -> Picture:
    image = next((row[column] for column in IMAGES if column in row), None)
    label, subject = row.get(LABEL), None
    data = image.get("bytes") if isinstance(image, dict) else image
    try:
        if isinstance(label, str):
            label = names.index(label) if names else None
        label = clean_label(label)
        subject = names[label] if names and label is not None else None
    except (ValueError, IndexError):
        return Picture(shown(name), reason="label_out_of_range")
    caption, key = first_text(row, columns.texts), row.get(columns.key)
    keys = () if key is None else (str(key),)
    return Picture(
        shown(name),
        data or b"",
        "" if data else "no_image",
        split,
        label,
        subject,
        caption,
        keys,
        key_of(name),
    )


@dataclass
class _File:
    """An open file of pictures: pyarrow's reader, and the bytes for the pages' headers."""

    table: pq.ParquetFile
    data: mmap.mmap

    @property
    def schema_arrow(self) -> pa.Schema:
        return self.table.schema_arrow

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a row group, a few at a time."""
        rows = self.batch_rows(group, columns, BATCH)
        foreign = LABEL in self.schema_arrow.names and LABEL not in columns
        for batch in self.table.iter_batches(rows, row_groups=[group], columns=columns):
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
                    check(table, len(data))
                    yield _File(table, data)
            except MemoryError:
                raise  # ours: what a file may claim was refused before
            except (pa.ArrowException, NotImplementedError) as error:
                raise ValueError(str(error)) from error


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


@atexit.register
def _forget() -> None:
    """Close the file before the interpreter ends: a reader that outlives its modules crashes."""
    _reading.cursor = None


def _rows(folder: Path, name: str, columns: Columns, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows [start, stop) of a file; parts that follow each other in one process read it once."""
    with opened(folder, name) as file:
        facts = os.fstat(file.fileno())
    key = (str(folder), name, columns, facts.st_size, facts.st_mtime_ns)
    cursor: _Cursor | None = getattr(_reading, "cursor", None)
    _reading.cursor = None  # given back below, once this part was read to its end
    if cursor is None or cursor.key != key or cursor.position > start:
        batches = _batches(folder, name, columns, start)
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


def _batches(folder: Path, name: str, columns: Columns, start: int) -> Iterator[Any]:
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
        wanted = columns.of(file.schema_arrow)
        yield begin
        for group in range(first, len(sizes)):
            yield from file.batches(group, wanted)
