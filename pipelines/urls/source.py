"""Lists of URLs or captions as streams of tables: parquet or CSV, by any URL of fsspec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from pipelines.urls.rules import BATCH_ROWS

SUFFIXES = (".parquet", ".csv", ".csv.gz")
CHUNK_BYTES = 1 << 22


def find_sources(places: Sequence[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[Any, str]]:
    """Resolve files, folders and globs to (file system, path), sorted within each place.

    Raises:
        FileNotFoundError: a place holds no file of these suffixes.
        ValueError: the package that reads such places is not installed.
    """
    found = []
    for place in places:
        try:
            system, path = fsspec.core.url_to_fs(place)
        except ImportError as error:
            raise ValueError(f"{place}: {error}, with pip beside this project") from error
        if any(sign in path for sign in "*?["):
            paths = sorted(system.glob(path))
        elif path.endswith(suffixes):
            paths = [path] if system.exists(path) else []
        else:
            paths = sorted(system.find(path))
        paths = [path for path in paths if path.endswith(suffixes)]
        if not paths:
            raise FileNotFoundError(f"{place}: there is no file that ends in {', '.join(suffixes)}")
        found += [(system, path) for path in paths]
    return found


def read_source(
    file: BinaryIO, name: str, columns: Mapping[str, str], only: Iterable[str] | None = None
) -> Iterator[pa.Table]:
    """Stream a file as tables of at most `BATCH_ROWS` rows (parquet) or a few MB (CSV).

    Args:
        file: open for reading; seekable for parquet.
        name: of the file, for its format and for messages.
        columns: our name to the file's name, for the columns that it must have.
        only: our names of the columns to read, as far as the file has them; all by default.

    Raises:
        ValueError: not readable, or without one of the columns.
    """
    try:
        if name.endswith(".parquet"):
            parquet = pq.ParquetFile(file)
            ours = _renamed(parquet.schema_arrow.names, name, columns)
            read = [column for column in ours if only is None or ours[column] in set(only)]
            schema = pa.schema([parquet.schema_arrow.field(column) for column in read])
            batches: Iterator[pa.RecordBatch] = parquet.iter_batches(batch_size=BATCH_ROWS, columns=read)
        else:
            stream: Any = pa.CompressedInputStream(file, "gzip") if name.endswith(".gz") else file
            reader = csv.open_csv(stream, read_options=csv.ReadOptions(block_size=CHUNK_BYTES))
            schema, batches = reader.schema, iter(reader)
            ours = _renamed(schema.names, name, columns)
        yield schema.empty_table().rename_columns([ours[column] for column in schema.names])
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield table.rename_columns([ours[column] for column in table.column_names])
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is not readable: {error}") from error


def _renamed(present: Sequence[str], name: str, columns: Mapping[str, str]) -> dict[str, str]:
    """The file's column names to ours."""
    for ours, theirs in columns.items():
        if theirs not in present:
            raise ValueError(
                f"{name} has no column {theirs!r} (for {ours!r}). It has: {', '.join(present)}. Name the "
                f"right one with {ours}=..."
            )
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    names = {}
    for column in present:
        names[column] = ours_of.get(column, f"{column}_original" if column in columns else column)
    return names
