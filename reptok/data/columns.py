"""The typed columns of every parquet file of the data stages, with one way to write and one way to read them.

The files are deterministic: the same rows give the same bytes (fixed encoding, fixed row groups, no clock).
A schema carries in its metadata which artifact it describes and which stage makes it, so that a read error
can say what to rerun.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

Source = str | Path | BinaryIO

SUCCESS, FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE = "success", "failed_to_download", "failed_to_resize"
"""Values of the `status` column of `IMAGES`, which are img2dataset's."""

ROWS_PER_GROUP = 1000
"""Rows of one parquet row group: what a streaming reader holds in memory at a time."""


def _schema(artifact: str, made_by: str, fields: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema(fields, metadata={"artifact": artifact, "made_by": made_by})


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_LABELS = [pa.field("label", pa.int64()), pa.field("subject", pa.string())]
_SPLIT = pa.field("split", pa.string())

URLS = _schema(
    "urls",
    "select_urls",
    [
        _required("key", pa.string()),
        _required("url", pa.string()),
        pa.field("text", pa.string()),
        _SPLIT,
        *_LABELS,
    ],
)
"""One row per selected URL; `key` is unique and ascending. The source's own columns follow."""

IMAGES = _schema(
    "images",
    "download",
    [
        _required("key", pa.string()),
        pa.field("url", pa.string()),
        pa.field("text", pa.string()),
        _required("status", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("jpg", pa.binary()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("original_width", pa.int32()),
        pa.field("original_height", pa.int32()),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.string()),
        pa.field("final_url", pa.string()),
        pa.field("exif", pa.string()),
        _SPLIT,
        *_LABELS,
    ],
)
"""One row per URL row, failures included; `jpg` holds a success's resized image, else null."""

HASHED_IMAGES = pa.schema(
    [*IMAGES, pa.field("image_phash", pa.string()), pa.field("whole_phash", pa.string())], IMAGES.metadata
)
"""The same with two perceptual hashes: the list's own of the picture, and that of what came, uncropped."""

VERDICTS = _schema(
    "verdicts",
    "filter_images",
    [
        _required("key", pa.string()),
        _required("kept", pa.bool_()),
        _required("quarantined", pa.bool_()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("source", pa.string()),
    ],
)
"""One row per successful image, in the order of `IMAGES`; a column for each score follows, float64.

`reason` says why it is not kept, `detail` more of it (the key of the earlier twin). What is `quarantined` is
to be looked at by nobody who is not charged with it. `source` is the host that it came from.
"""

NAMED_KEYS = _schema(
    "verdicts",
    "filter_images",
    [
        _required("key", pa.string()),
        _required("table", pa.string()),
        _required("reason", pa.string()),
        pa.field("detail", pa.string()),
    ],
)
"""Images named by their keys and their tables of `IMAGES`, in the order of both."""

_GENERATED = pa.struct(
    [
        _required("text", pa.string()),
        _required("prompt", pa.string()),
        _required("seed", pa.int64()),
        pa.field("reason", pa.string()),
    ]
)

CAPTIONS = _schema(
    "captions",
    "caption",
    [
        _required("key", pa.string()),
        _required("caption", pa.string()),
        _required("source", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("alt_text", pa.string()),
        pa.field("generated", pa.list_(_GENERATED)),
        pa.field("model", pa.string()),
        pa.field("revision", pa.string()),
        pa.field("decoding", pa.string()),
    ],
)
"""One row per successful image.

`caption` is the one to train on; `source` says whose it is ("model", "alt_text" or "fallback"), and `reason`
why it is not of the source that the mix drew. `alt_text` is the cleaned alt-text. `generated` is all that the
model wrote, each with prompt, seed and the gate that refused it (null where none did); `model`, `revision`
and `decoding` (JSON) say who wrote it and how.
"""

SAMPLES = _schema(
    "dataset",
    "shard` or `import_images",
    [
        _required("key", pa.string()),
        _required("caption", pa.string()),
        *_LABELS,
        _required("width", pa.int32()),
        _required("height", pa.int32()),
    ],
)
"""The table beside each dataset tar: the same samples in the same order, without the pixels."""


def to_table(columns: Mapping[str, Any] | Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Make a table that follows `schema`, from columns or from rows.

    Absent nullable columns become null. Columns that the schema does not know are kept, after its own.

    Args:
        columns: Column name to values, or a sequence of rows.
        schema: One of this module's schemas.

    Raises:
        ValueError: A required column is absent or holds a null, or a value has the wrong type.
    """
    if not isinstance(columns, Mapping):
        names = list(dict.fromkeys([*schema.names, *(name for row in columns for name in row)]))
        columns = {name: [row.get(name) for row in columns] for name in names}
    rows = max((len(values) for values in columns.values()), default=0)
    arrays, fields = [], []
    for field in schema:
        values = columns.get(field.name, [None] * rows)
        try:
            array = (
                values.cast(field.type)
                if isinstance(values, pa.Array | pa.ChunkedArray)
                else pa.array(values, field.type)
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(
                f"column {field.name!r} of {_artifact(schema)} must be {field.type}: {error}"
            ) from error
        if not field.nullable and array.null_count:
            raise ValueError(f"column {field.name!r} of {_artifact(schema)} may not be empty in any row")
        arrays.append(array)
        fields.append(field)
    for name in columns:
        if name not in schema.names:
            values = columns[name]
            arrays.append(values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values))
            fields.append(pa.field(name, arrays[-1].type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=schema.metadata))


def write_table(
    file: Source, rows: pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]], schema: pa.Schema
) -> int:
    """Write rows as parquet with fixed options; the same rows give the same bytes.

    Args:
        file: Local path or binary file object open for writing.
        rows: A table, columns or rows (see `to_table`).
        schema: One of this module's schemas.

    Returns:
        The number of rows written.
    """
    if isinstance(rows, pa.Table):
        rows = {name: rows.column(name) for name in rows.column_names}
    table = to_table(rows, schema)
    compressed = {field.name: "none" if pa.types.is_binary(field.type) else "zstd" for field in table.schema}
    pq.write_table(
        table,
        file,
        row_group_size=ROWS_PER_GROUP,
        version="2.6",
        compression=compressed,
        use_dictionary=[
            field.name for field in table.schema if field.name in ("status", "reason", "split", "source")
        ],
        write_statistics=[field.name for field in table.schema if not pa.types.is_binary(field.type)],
    )
    return int(table.num_rows)


def read_table(
    file: Source, schema: pa.Schema, name: str = "", columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a parquet file and check that it has what `schema` promises.

    Args:
        file: Local path or seekable binary file object.
        schema: One of this module's schemas.
        name: File name for error messages; the path by default.
        columns: Columns to read; all columns of the file by default.

    Raises:
        ValueError: Not a parquet file, or a column is missing; the message names file, column and stage.
    """
    reader = _open(file, schema, name, columns)
    return reader.read(columns=list(columns) if columns is not None else None)


def iterate_rows(
    file: Source, schema: pa.Schema, name: str = "", columns: Sequence[str] | None = None, rows: int = 256
) -> Iterator[dict[str, Any]]:
    """Yield one dict per row, holding about `rows` rows in memory; checks as `read_table` does."""
    reader = _open(file, schema, name, columns)
    wanted = list(columns) if columns is not None else None
    for group in range(reader.num_row_groups):  # one by one: what is read ahead is held
        for batch in reader.iter_batches(batch_size=rows, row_groups=[group], columns=wanted):
            yield from batch.to_pylist()


def count_rows(file: Source) -> int:
    """Return the number of rows from the file's footer."""
    return int(pq.ParquetFile(file).metadata.num_rows)


def _open(file: Source, schema: pa.Schema, name: str, columns: Sequence[str] | None) -> pq.ParquetFile:
    name = name or str(getattr(file, "name", file))
    try:
        reader = pq.ParquetFile(file, pre_buffer=True)  # column chunks that adjoin are one read
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{name} is not a readable parquet file ({error}); rerun {_made_by(schema)}"
        ) from error
    present = reader.schema_arrow
    for column in columns if columns is not None else schema.names:
        if column not in present.names:
            raise ValueError(
                f"{name} has no column {column!r} (it has: {', '.join(present.names)}), "
                f"so it is no {_artifact(schema)} table; rerun {_made_by(schema)}"
            )
        if column in schema.names and present.field(column).type != schema.field(column).type:
            raise ValueError(
                f"{name}: column {column!r} is {present.field(column).type}, "
                f"expected {schema.field(column).type}; rerun {_made_by(schema)}"
            )
    return reader


def _artifact(schema: pa.Schema) -> str:
    return f"`{schema.metadata[b'artifact'].decode()}`"


def _made_by(schema: pa.Schema) -> str:
    return f"`{schema.metadata[b'made_by'].decode()}`"
