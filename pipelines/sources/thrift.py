"""Thrift's compact protocol, as far as parquet's headers need it: numbers, structs, lists; texts are skipped.

Nothing is allocated by what a header claims: a list has as many entries as stand there, nesting has an end.
"""

from __future__ import annotations

import mmap
from typing import Any

MAX_DEPTH = 16
_BOOLEANS, _BYTE, _NUMBERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12


def read_struct(
    data: mmap.mmap | bytes, place: int, last: int | None = None, depth: int = 0
) -> tuple[dict[int, Any], int]:
    """Read the struct that begins at a place.

    Args:
        data: The file.
        place: Where the struct begins.
        last: The field behind which nothing is read; None for all.
        depth: How deeply the struct stands in others.

    Returns:
        The values by field: numbers, dictionaries, lists, None for anything else; and the place behind.

    Raises:
        ValueError: It is damaged.
    """
    if depth > MAX_DEPTH:
        raise ValueError("a header nested too deeply")
    found: dict[int, Any] = {}
    field = 0
    while last is None or field < last:
        head = _byte(data, place)
        place += 1
        if head == 0:
            break
        if head >> 4:
            field += head >> 4
        else:
            field, place = _number(data, place)
        kind = head & 15
        found[field], place = (None, place) if kind in _BOOLEANS else _value(data, place, kind, depth)
    return found, place


def _value(data: mmap.mmap | bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        return _number(data, place)
    if kind == _STRUCT:
        return read_struct(data, place, depth=depth + 1)
    if kind in _LISTS and depth < MAX_DEPTH:
        return _list(data, place, depth)
    if kind in (_BYTE, *_BOOLEANS):
        return None, place + 1
    if kind == _DOUBLE:
        return None, place + 8
    if kind == _BINARY:
        size, place = _varint(data, place)
        return None, place + size
    raise ValueError("a damaged header")


def _list(data: mmap.mmap | bytes, place: int, depth: int) -> tuple[list[Any], int]:
    head = _byte(data, place)
    size, place = (head >> 4, place + 1) if head >> 4 < 15 else _varint(data, place + 1)
    values = []
    for _ in range(size):
        value, place = _value(data, place, head & 15, depth + 1)
        _byte(data, place - 1)
        values.append(value)
    return values, place


def _number(data: mmap.mmap | bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: mmap.mmap | bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(data, place)
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("a damaged number in a header")


def _byte(data: mmap.mmap | bytes, place: int) -> int:
    if not 0 <= place < len(data):
        raise ValueError("a header is cut off")
    return data[place]
