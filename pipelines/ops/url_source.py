"""Lists of URLs as streams of tables: parquet or CSV, files, folders or globs, local or remote (fsspec)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from pipelines.ops.url_rules import BATCH_ROWS

SUFFIXES = (".parquet", ".csv", ".csv.gz")
CHUNK_BYTES = 1 << 22


def find_sources(places: Sequence[str]) -> list[tuple[Any, str]]:
    """Resolve files, folders and globs to (file system, path), sorted within each place.

    Raises:
        FileNotFoundError: a place holds no parquet or CSV file.
    """
    found = []
    for place in places:
        system, path = fsspec.core.url_to_fs(place)
        if any(sign in path for sign in "*?["):
            paths = sorted(system.glob(path))
        elif path.endswith(SUFFIXES):
            paths = [path] if system.exists(path) else []
        else:
            paths = sorted(system.find(path))
        paths = [path for path in paths if path.endswith(SUFFIXES)]
        if not paths:
            raise FileNotFoundError(f"{place}: there is no file that ends in {', '.join(SUFFIXES)}")
        found += [(system, path) for path in paths]
    return found


def read_source(file: BinaryIO, name: str, columns: Mapping[str, str]) -> Iterator[pa.Table]:
    """Stream a file as tables of at most `BATCH_ROWS` rows (parquet) or a few MB (CSV).

    Args:
        file: open for reading; seekable for parquet.
        name: of the file, for its format and for messages.
        columns: our name to the file's name, for columns that are called otherwise there.

    Raises:
        ValueError: not readable, or without one of the columns.
    """
    try:
        if name.endswith(".parquet"):
            parquet = pq.ParquetFile(file)
            schema = parquet.schema_arrow
            batches: Iterator[pa.RecordBatch] = parquet.iter_batches(batch_size=BATCH_ROWS)
        else:
            stream: Any = pa.CompressedInputStream(file, "gzip") if name.endswith(".gz") else file
            reader = csv.open_csv(stream, read_options=csv.ReadOptions(block_size=CHUNK_BYTES))
            schema, batches = reader.schema, iter(reader)
        renamed = _renamed(schema.names, name, columns)
        yield schema.empty_table().rename_columns(renamed)
        for batch in batches:
            yield pa.Table.from_batches([batch]).rename_columns(renamed)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{name} is not readable: {error}") from error


def _renamed(present: Sequence[str], name: str, columns: Mapping[str, str]) -> list[str]:
    wanted = {"url": "url", "text": "text", **columns}
    for ours, theirs in wanted.items():
        if theirs not in present:
            raise ValueError(
                f"{name} has no column {theirs!r} (for {ours!r}). It has: {', '.join(present)}. Name the "
                f"right one with columns.{ours}=..."
            )
    ours_of = {theirs: ours for ours, theirs in wanted.items()}
    return [ours_of.get(column, f"{column}_original" if column in wanted else column) for column in present]
