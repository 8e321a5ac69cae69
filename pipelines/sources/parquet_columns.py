"""Which columns of a parquet file hold the picture, its class and its caption, as the hub names them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.source import clean_caption

IMAGES, LABEL = ("image", "img", "jpg", "jpeg", "png", "webp"), "label"
"""Columns that may hold the picture: the first that a file has; and the class."""

FEW_ROWS = 2**22


@dataclass(frozen=True)
class Columns:
    """What is read beside image and label: columns that may hold the caption, and one that names the row."""

    texts: tuple[str, ...]
    key: str

    def of(self, schema: pa.Schema) -> list[str]:
        """Of what is read: the bytes of the image and not its path, label, texts and key; never a list."""
        name = image_column(schema)
        image = f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name
        if self.key and not _is_name(kind_of(schema, self.key)):
            raise ValueError(f"no column {self.key!r} of texts or numbers to find a row's caption by")
        label = [LABEL] if tells_classes(schema) else []
        texts = [text for text in self.texts if is_text(kind_of(schema, text))]
        others = [other for other in (*label, *texts, self.key) if other and other != name]
        return [image, *dict.fromkeys(others)]


def check(table: pq.ParquetFile, size: int) -> None:
    """Refuse a file of `size` bytes without a column of pictures, or with more rows than it can have."""
    if table.metadata.num_rows > max(size, FEW_ROWS):
        raise ValueError(f"{table.metadata.num_rows} rows in {size} bytes: there is no picture in so little")
    schema = table.schema_arrow
    name = image_column(schema)
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(
            f"column {name!r} is {schema.field(name).type}; bytes or {{bytes, path}} is expected"
        )


def image_column(schema: pa.Schema) -> str:
    """The column of the picture."""
    name = next((name for name in IMAGES if name in schema.names), IMAGES[0])
    if schema.names.count(name) != 1:
        raise ValueError(f"not one column {name!r} (it has: {', '.join(schema.names)[:200]})")
    return name


def tells_classes(schema: pa.Schema) -> bool:
    """Whether there is a column of classes, by number or by name."""
    return _is_name(kind_of(schema, LABEL))


def kind_of(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column; null where it is missing or doubled."""
    return schema.field(name).type if schema.names.count(name) == 1 else pa.null()


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts, be it by a dictionary."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_name(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or is_text(kind)


def class_names(schema: pa.Schema) -> tuple[str, ...] | None:
    """Class names as the hub's writer stores them in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[LABEL]["names"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(clean_caption(name) for name in names)
    return None
