"""Captions beside pictures: `metadata.jsonl` or `metadata.csv` of names and texts, or files beside each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.sources.source import TXT, OutsideError, clean_caption, read_file
from reptok.data.shards import parse_object

NAMES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMNS = ("file_name", "file", "path")
MAX_TEXT_BYTES = 2**16
MAX_FAULTS, MAX_COLUMNS = 10_000, 1000


def read_metadata(root: Path, files: list[Path], fields: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Read every metadata file of a folder.

    Args:
        root: The folder of pictures.
        files: Metadata files in it, absolute.
        fields: Columns that may hold the text.

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
                name, text = _entry(row, fields)
            except ValueError as error:
                faults.append(f"{place}, line {number}: {error}")
                continue
            captions[(PurePosixPath(place.parent.as_posix()) / name).as_posix()] = text
    return captions, faults


def beside(fields: Sequence[str]) -> tuple[str, ...]:
    """Extensions of the files beside a picture that may hold its caption."""
    return (".txt",) * (TXT in fields) + (".json",) * any(field != TXT for field in fields)


def caption_beside(folder: Path, picture: str, fields: Sequence[str]) -> str | None:
    """The caption that stands in the `.txt` or `.json` beside a picture; None if neither can be read.

    Raises:
        OutsideError: One is a link that leaves the folder.
    """
    row: dict[str, Any] = {}
    for suffix in beside(fields):
        try:
            data = read_file(folder, Path(picture).with_suffix(suffix).as_posix(), MAX_TEXT_BYTES)
            row |= {TXT: data.decode("utf-8", "replace")} if suffix == ".txt" else others(parse_object(data))
        except OutsideError:
            raise
        except ValueError:
            continue
    return first_text(row, fields)


def others(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object without a field that is called as the text file is."""
    return {name: value for name, value in facts.items() if name != TXT}


def _entry(row: Any, fields: Sequence[str]) -> tuple[str, str]:
    if isinstance(row, ValueError):
        raise row
    name = next((row[column] for column in FILE_COLUMNS if isinstance(row.get(column), str)), "")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name[:80]!r} is no path inside the folder")
    text = first_text(row, fields)
    if text is None:
        raise ValueError(f"no text; looked for {', '.join(fields)}")
    return path.as_posix(), text


def first_text(row: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    """The cleaned text of the first field that has one; None if none has."""
    return next((clean_caption(row[field]) for field in fields if isinstance(row.get(field), str)), None)


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
