"""What a parquet file claims, held against its bytes before a reader allocates by it.

A page of kilobytes may unpack to gigabytes, and the file's footer need not say so; a thousand bytes may claim
a dictionary of billions of values, or a schema nested until the reader's stack ends. All of it stands in
headers (Thrift's compact protocol), and nothing is unpacked to know it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

from pipelines.sources.thrift import read_struct

MAX_PAGE, MAX_RATIO, SMALL_PAGE = 2**29, 100, 2**26
"""A page of more bytes, or one above a small one's size that unpacks to so many times its own, is refused."""
MAX_FOOTER, MAX_COLUMNS, MAX_NESTING = 2**24, 2**14, 64
"""Bytes of the footer, which takes some twenty times as many in memory; columns, and how deeply they nest."""

_SCHEMA, _CHILDREN = 2, 5
_KIND, _UNPACKED, _PACKED, _VALUES, _ENCODING = 1, 2, 3, 1, 2
_DATA, _INDEX, _DICTIONARY, _DATA_V2 = 0, 1, 2, 3
_HEADERS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_ENCODINGS = {0: "PLAIN", 2: "PLAIN_DICTIONARY", 3: "RLE", 8: "RLE_DICTIONARY", 9: "BYTE_STREAM_SPLIT"}
"""Those whose values cannot outgrow what their page unpacks to. The others (`DELTA_...`) count their values
inside the page: one of a hundred bytes made a reader allocate 8 GB."""


def check_footer(file: mmap.mmap | bytes) -> None:
    """Refuse a footer whose reading alone would exhaust memory or the stack.

    Raises:
        ValueError: It is damaged, too large, or its schema too wide or too deep.
    """
    size = int.from_bytes(file[-8:-4], "little")
    if file[-4:] != b"PAR1" or not 0 < size <= len(file) - 12:
        raise ValueError("it has no footer; the file is cut off, encrypted or no parquet file")
    if size > MAX_FOOTER:
        raise ValueError(f"its footer has {size} bytes; {MAX_FOOTER} are read")
    schema = read_struct(file, len(file) - 8 - size, last=_SCHEMA)[0].get(_SCHEMA)
    if not isinstance(schema, list) or not all(isinstance(element, dict) for element in schema):
        raise ValueError("its footer has no schema")
    if len(schema) > MAX_COLUMNS:
        raise ValueError(f"its schema has {len(schema)} elements; {MAX_COLUMNS} are read")
    due: list[int] = []  # how many children of each open group are still to come
    for element in schema:
        if due:
            due[-1] -= 1
        if children := element.get(_CHILDREN) or 0:
            due.append(children)
        while due and due[-1] == 0:
            due.pop()
        if len(due) > MAX_NESTING:
            raise ValueError(f"its schema nests more than {MAX_NESTING} groups")


def largest_page(file: mmap.mmap, metadata: Any, group: int, columns: Iterable[str]) -> int:
    """Bytes of the largest unpacked page of some columns in a row group.

    Args:
        file: The file's bytes.
        metadata: pyarrow's FileMetaData.
        group: Number of the row group.
        columns: Names of top-level columns without lists, or dotted paths below them.

    Raises:
        ValueError: A header is damaged, claims more values than there are rows, an encoding that is not
            read, or a page that unpacks to more than any picture file needs.
    """
    wanted = tuple(columns)  # below a dotted path, what a column of such a name holds is read along
    row_group, largest = metadata.row_group(group), 0
    rows = min(row_group.num_rows, metadata.num_rows)
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        path = chunk.path_in_schema
        if any(path == name or ("." in name and path.startswith(f"{name}.")) for name in wanted):
            largest = max(largest, _largest(file, chunk, rows))
    return largest


def _largest(file: mmap.mmap, chunk: Any, rows: int) -> int:
    place, first = chunk.data_page_offset, chunk.dictionary_page_offset
    if first is not None and 0 < first < place:
        place = first
    end, largest = place + chunk.total_compressed_size, 0
    if not 0 < place <= end <= len(file):
        raise ValueError("a column lies outside of its file")
    while place < end:
        header, place = read_struct(file, place)
        unpacked, packed = header.get(_UNPACKED), header.get(_PACKED)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or unpacked < 0 or packed < 0:
            raise ValueError("a page without a size")
        if unpacked > MAX_PAGE or (unpacked > SMALL_PAGE and unpacked > MAX_RATIO * packed):
            raise ValueError(f"a page of {packed} bytes unpacks to {unpacked}")
        _check_page(header, unpacked, rows)
        largest, place = max(largest, unpacked), place + packed
    return largest


def _check_page(header: dict[int, Any], unpacked: int, rows: int) -> None:
    kind = header.get(_KIND)
    if kind == _INDEX:
        return
    own = header.get(_HEADERS.get(kind, 0)) if isinstance(kind, int) else None
    if not isinstance(own, dict):
        raise ValueError("a page of no known kind")
    values = own.get(_VALUES)
    most = unpacked if kind == _DICTIONARY else rows
    if not isinstance(values, int) or not 0 <= values <= most:
        raise ValueError(f"a page claims {values} values where there can be {most}")
    encoding = own.get(4 if kind == _DATA_V2 else _ENCODING)
    if encoding not in _ENCODINGS:
        raise ValueError(
            f"a page has encoding {encoding}, which may grow without end; write the file again with one of "
            f"{', '.join(_ENCODINGS.values())}"
        )
