"""Captions beside pictures: `metadata.jsonl` or `metadata.csv` of names and texts, or a `.txt` each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.sources.source import OutsideError, clean_caption, read_file
from reptok.data.shards import parse_object

NAMES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMNS, TEXT_COLUMNS = ("file_name", "file", "path"), ("caption", "text", "description")
MAX_TEXT_BYTES = 2**16
MAX_FAULTS, MAX_COLUMNS = 10_000, 1000


def read_metadata(root: Path, files: list[Path]) -> tuple[dict[str, str], list[str]]:
    """Read every metadata file of a folder.

    Args:
        root: The folder of pictures.
        files: Metadata files in it, absolute.

    Returns:
        Caption by the picture's path relative to `root`; and one line for each line that is no entry.
    """
    captions: dict[str, str] = {}
    faults: list[str] = []
    for file in sorted(files):
        place = file.relative_to(root)
        try:
            data = read_file(root, place.as_posix())
        except ValueError as error:
            faults.append(f"{place}: cannot be read: {error}")
            continue
        rows = _json_lines(data) if file.suffix == ".jsonl" else _csv_rows(data)
        found = len(faults)
        for number, row in rows:
            if len(faults) - found >= MAX_FAULTS:
                faults.append(f"{place}: more than {MAX_FAULTS} lines are no entries; the rest is not read")
                break
            try:
                name, text = _entry(row)
            except ValueError as error:
                faults.append(f"{place}, line {number}: {error}")
                continue
            captions[(PurePosixPath(place.parent.as_posix()) / name).as_posix()] = text
    return captions, faults


def caption_beside(folder: Path, picture: str) -> str | None:
    """The text of the `.txt` beside a picture; None if there is none that can be read.

    Raises:
        OutsideError: It is a link that leaves the folder.
    """
    try:
        data = read_file(folder, Path(picture).with_suffix(".txt").as_posix(), MAX_TEXT_BYTES)
    except OutsideError:
        raise
    except ValueError:
        return None
    return clean_caption(data.decode("utf-8", "replace"))


def _entry(row: Any) -> tuple[str, str]:
    if isinstance(row, ValueError):
        raise row
    name = next((row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)), "")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name[:80]!r} is no path inside the folder")
    for column in TEXT_COLUMNS:
        if isinstance(row.get(column), str):
            return path.as_posix(), clean_caption(row[column])
    raise ValueError(f"no text; looked for {', '.join(TEXT_COLUMNS)}")


def _json_lines(data: bytes) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(io.BytesIO(data), 1):
        if line.strip():
            try:
                yield number, parse_object(line)
            except ValueError as error:
                yield number, ValueError(f"no JSON object: {error}")


def _csv_rows(data: bytes) -> Iterator[tuple[int, Any]]:
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "replace", newline="")
    reader = csv.DictReader(text)
    try:
        columns = len(reader.fieldnames or ())
    except csv.Error as error:
        yield 1, ValueError(f"no CSV: {error}")
        return
    if columns > MAX_COLUMNS:
        yield 1, ValueError(f"{columns} columns")
        return
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, ValueError(f"no CSV: {error}")
            if reader.line_num == 0:
                return
            continue
        yield reader.line_num, row
