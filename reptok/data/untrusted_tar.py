"""Tars that others wrote, read strictly and as a stream: nothing is extracted, followed or unpickled.

Ustar, GNU long names and pax paths are understood, because common writers make them. A name that is
absolute or has `..`, a link or a device is told with its reason; damage ends the archive with a ValueError,
never in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from reptok.data.tar import BLOCK

MAX_NAME_BYTES = 2**16
"""Of a long name or of a pax record."""
MAX_DATA_BYTES = 2**28
"""Larger files are passed over: no picture has as many bytes."""
MAX_CLAIM = 2**40
CHUNK = 2**20
_PAX_ENTRY = re.compile(rb"(\d{1,6}) ([^=]{1,256})=")
_GZIP, _OTHERS = b"\x1f\x8b", (b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_REGULAR, _FOLDER, _LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = (
    (b"0", b"\0"), b"5", b"L", b"K", (b"x", b"X"), b"g",
)  # fmt: skip


@dataclass(frozen=True)
class UntrustedMember:
    """A file of a tar.

    Attributes:
        path: Its name, as it stands there.
        data: Its bytes; empty if they were not asked for or the file is refused.
        refused: Why it may not be used, else "".
    """

    path: str
    data: bytes = b""
    refused: str = ""


def iterate_untrusted(
    file: BinaryIO, *, wanted: Callable[[str], int | None] | None = None
) -> Iterator[UntrustedMember]:
    """Yield the files of a tar in order; folders are left out.

    Args:
        file: The archive, seekable: what is not read is not looked at, holes of a sparse file among it.
        wanted: The most bytes that are read of a file of that name, None to pass over it; a larger one is
            refused. Without it, no bytes are read.

    Raises:
        ValueError: The archive is damaged, truncated or compressed, from here on.
    """
    long_name = ""
    while (header := _exactly(file, BLOCK)) and any(header):
        kind, size = _checked(header), _size(header)
        if size > MAX_CLAIM:
            raise ValueError("a member larger than any disk; the archive is damaged")
        if kind in (_LONG_NAME, _LONG_LINK, _PAX_GLOBAL, *_PAX):
            if size > MAX_NAME_BYTES:
                raise ValueError("a name longer than any file system allows")
            record = _exactly(file, size)
            _exactly(file, -size % BLOCK)
            if kind == _LONG_NAME:
                long_name = record.rstrip(b"\0").decode("utf-8", "replace")
            elif kind in _PAX:
                long_name = _pax_path(record) or long_name
            continue
        path, long_name = long_name or _path(header), ""
        if kind not in _REGULAR:
            size = 0 if kind in b"123456" else size
        limit = wanted(path) if wanted and kind != _FOLDER else None
        reason = refusal(path, kind, size if limit is None else size + MAX_DATA_BYTES - limit)
        data = b""
        try:
            if limit is not None and not reason:
                data = _exactly(file, size)
                _exactly(file, -size % BLOCK)
            else:
                _skip(file, size + -size % BLOCK)
        except ValueError:
            yield UntrustedMember(path, b"", "damaged")  # its name tells that what stood before it was whole
            raise
        if kind != _FOLDER or reason:
            yield UntrustedMember(path, data, reason)


def refusal(path: str, kind: bytes, size: int) -> str:
    """Tell why a member may not be used; "" if it may."""
    if path.startswith("/") or "\\" in path or re.match(r"[A-Za-z]:", path):
        return "absolute_path"
    if ".." in path.split("/"):
        return "parent_path"
    if "\0" in path or not path:
        return "bad_name"
    if kind in (b"1", b"2"):
        return "link"
    if kind not in (*_REGULAR, _FOLDER, b"7"):
        return "special_file"
    return "too_large" if size > MAX_DATA_BYTES else ""


def _checked(header: bytes) -> bytes:
    """The type of the member, after its header's checksum."""
    if header.startswith((_GZIP, *_OTHERS)):
        raise ValueError("the archive is compressed; decompress it first")
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    stored = re.fullmatch(rb" *([0-7]{1,7})[\0 ]*", header[148:156])
    if stored is None or int(stored[1], 8) != total:
        raise ValueError("no tar header where one is due; the archive is damaged")
    return header[156:157]


def _size(header: bytes) -> int:
    field = header[124:136]
    if field[0] & 0x80:  # GNU's binary number, for files beyond 8 GB
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else _no_size()
    stored = re.fullmatch(rb" *([0-7]{0,12})[\0 ]*", field)
    return int(stored[1] or b"0", 8) if stored else _no_size()


def _no_size() -> int:
    raise ValueError("a member without a size; the archive is damaged")


def _path(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _pax_path(record: bytes) -> str:
    """The `path` of a pax header, "" if it has none."""
    path, place = "", 0
    while place < len(record):
        found = _PAX_ENTRY.match(record, place)
        end = place + int(found[1]) if found else 0
        if found is None or end > len(record) or end <= found.end():
            raise ValueError("a broken pax header; the archive is damaged")
        value = record[found.end() : end - 1]
        if found[2] == b"path":
            path = value.decode("utf-8", "replace")
        elif found[2] == b"size" or found[2].startswith(b"GNU.sparse"):
            raise ValueError("a pax header with a size of its own, which no image needs")
        place = end
    return path


def _skip(file: BinaryIO, size: int) -> None:
    """Pass over bytes without reading them, all but the last: it tells whether they are there."""
    if size:
        file.seek(size - 1, 1)
        _exactly(file, 1)


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Read in pieces: memory follows what is there, not what a header claims."""
    pieces, missing = [], size
    while missing and (piece := file.read(min(missing, CHUNK))):
        pieces.append(piece)
        missing -= len(piece)
    if missing:
        raise ValueError("the archive is truncated")
    return b"".join(pieces)
