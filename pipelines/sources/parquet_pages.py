"""What the pages of a parquet file unpack to, from their headers alone: nothing is decompressed to know it.

A page of kilobytes may unpack to gigabytes, and the footer need not say so; the sizes in the pages' own
headers (Thrift's compact protocol) are those that a reader allocates.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

MAX_PAGE, MAX_RATIO, SMALL_PAGE = 2**29, 100, 2**26
"""A page of more bytes, or one above a small one's size that unpacks to so many times its own, is refused."""
MAX_DEPTH = 16
_UNPACKED, _PACKED = 2, 3
_BOOLEANS, _BYTE, _NUMBERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def largest_page(file: mmap.mmap, metadata: Any, group: int, columns: Iterable[str]) -> int:
    """Bytes of the largest unpacked page of some columns in a row group.

    Args:
        file: The file's bytes.
        metadata: pyarrow's FileMetaData.
        group: Number of the row group.
        columns: Names of top-level columns, or dotted paths below them.

    Raises:
        ValueError: A header is damaged, or a page unpacks to more than any picture file needs.
    """
    wanted = tuple(columns)
    row_group, largest = metadata.row_group(group), 0
    for number in range(row_group.num_columns):
        chunk = row_group.column(number)
        path = chunk.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in wanted):
            largest = max(largest, _largest(file, chunk))
    return largest


def _largest(file: mmap.mmap, chunk: Any) -> int:
    place, first = chunk.data_page_offset, chunk.dictionary_page_offset
    if first is not None and 0 < first < place:
        place = first
    end, largest = place + chunk.total_compressed_size, 0
    if not 0 < place <= end <= len(file):
        raise ValueError("a column lies outside of its file")
    while place < end:
        fields, place = _struct(file, place, 0)
        unpacked, packed = fields.get(_UNPACKED, -1), fields.get(_PACKED, -1)
        if unpacked < 0 or packed < 0:
            raise ValueError("a page without a size")
        if unpacked > MAX_PAGE or (unpacked > SMALL_PAGE and unpacked > MAX_RATIO * packed):
            raise ValueError(f"a page of {packed} bytes unpacks to {unpacked}")
        largest, place = max(largest, unpacked), place + packed
    return largest


def _struct(data: mmap.mmap, place: int, depth: int) -> tuple[dict[int, int], int]:
    """The numbers of a struct by field, and the place behind it."""
    found: dict[int, int] = {}
    field = 0
    while True:
        head = _byte(data, place)
        place += 1
        if head == 0:
            return found, place
        kind = head & 15
        if head >> 4:
            field += head >> 4
        else:
            number, place = _varint(data, place)
            field = (number >> 1) ^ -(number & 1)
        if kind in _NUMBERS:
            number, place = _varint(data, place)
            found[field] = (number >> 1) ^ -(number & 1)
        else:
            place = _skip(data, place, kind, depth)


def _skip(data: mmap.mmap, place: int, kind: int, depth: int, in_list: bool = False) -> int:
    if depth > MAX_DEPTH:
        raise ValueError("a page header nested too deeply")
    if kind in _BOOLEANS:
        return place + in_list
    if kind == _BYTE:
        return place + 1
    if kind in _NUMBERS:
        return _varint(data, place)[1]
    if kind == _DOUBLE:
        return place + 8
    if kind == _BINARY:
        size, place = _varint(data, place)
        return place + size
    if kind in _LISTS:
        head = _byte(data, place)
        size, place = (head >> 4, place + 1) if head >> 4 < 15 else _varint(data, place + 1)
        for _ in range(size):
            place = _skip(data, place, head & 15, depth + 1, in_list=True)
            _byte(data, place - 1)
        return place
    if kind == _STRUCT:
        return _struct(data, place, depth + 1)[1]
    raise ValueError("a damaged page header")


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, place)
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a damaged number in a page header")


def _byte(data: mmap.mmap, place: int) -> int:
    if not 0 <= place < len(data):
        raise ValueError("a page header is cut off")
    return data[place]
