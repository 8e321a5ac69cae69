"""Plain tar files, written deterministically and read strictly; members are never extracted to disk.

Of the tar format only what we write is accepted: ustar headers, regular files, flat names of a key and an
extension. Everything else (folders, links, `..`, absolute paths, truncated archives) is an error; Python's
`tarfile` reads past several of these in silence.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reptok.data.remote import RemotePath

BLOCK = 512
MAX_MEMBER_BYTES = 2**31
"""Refuse larger members: a shard's blocks are some tens of MB, and a size is a claim of a foreign header."""
CURE = "rerun the stage that made it"
_CHUNK = 2**22
_NAME = re.compile(r"(?P<key>[A-Za-z0-9_-]{1,80})\.(?P<extension>[a-z0-9]{1,12})")

Source = str | Path | RemotePath | BinaryIO


@dataclass(frozen=True, slots=True)
class Member:
    """Where one member's bytes lie: `size` bytes from `offset`, uncompressed."""

    key: str
    extension: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """The member's file name, key and extension."""
        return f"{self.key}.{self.extension}"


class TarWriter:
    """Write members one after the other: mtime 0, owner 0, ustar; the same calls give the same bytes."""

    def __init__(self, file: BinaryIO):
        """Write to `file`, which stays open and needs no seeking."""
        self._file = file
        self.bytes_written = 0

    def add(self, name: str, data: bytes) -> None:
        """Append a member; `name` is `{key}.{extension}` without folders.

        Raises:
            ValueError: The name is not of that form.
        """
        split_name(name)
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = len(data), 0o644, 0
        self._write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        self._write(data)
        self._write(b"\0" * (-len(data) % BLOCK))

    def close(self) -> None:
        """Write the end of the archive; the file object stays open."""
        self._write(b"\0" * (2 * BLOCK))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.bytes_written += len(data)


def split_name(name: str) -> tuple[str, str]:
    """Split `{key}.{extension}`.

    Raises:
        ValueError: The name has folders, `..`, further dots or characters that a key may not have.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"member name {name!r} is refused: expected KEY.EXTENSION of [A-Za-z0-9_-], without folders"
        )
    return match["key"], match["extension"]


def iterate_members(
    file: BinaryIO, name: str = "the tar", refused: Callable[[str], None] | None = None
) -> Iterator[tuple[Member, bytes]]:
    """Stream `(member, bytes)` in file order; `file` needs no seeking.

    Args:
        file: The archive.
        name: What messages call it.
        refused: Told of each member that is whole and not one of ours (a link, a folder, `..`), which is
            passed over then; by default it is an error like any other.

    Raises:
        ValueError: The archive is truncated or holds anything that `TarWriter` would not write.
    """
    offset = 0
    while (header := _read_header(file, name, offset)) is not None:
        path, kind, size = header
        data = _read_exactly(file, size, name)
        _read_exactly(file, -size % BLOCK, name)
        try:
            key, extension = _checked(path, kind, name)
        except ValueError as error:
            if refused is None:
                raise
            refused(str(error))
        else:
            yield Member(key, extension, offset + BLOCK, size), data
        offset += BLOCK + size + (-size % BLOCK)


def index_members(file: BinaryIO, name: str = "the tar") -> list[Member]:
    """List the members of a seekable file by reading their headers alone; errors as in `iterate_members`."""
    members: list[Member] = []
    offset, end = 0, file.seek(0, io.SEEK_END)
    file.seek(0)
    while (header := _read_header(file, name, offset)) is not None:
        path, kind, size = header
        members.append(Member(*_checked(path, kind, name), offset + BLOCK, size))
        offset += BLOCK + size + (-size % BLOCK)
        if offset > end:
            raise ValueError(f"{name} is truncated: {offset - end} bytes missing; {CURE}")
        file.seek(offset)
    return members


@contextmanager
def opened(source: Source) -> Iterator[tuple[BinaryIO, str]]:
    """Give `(file, name)` for a path, opened and closed here, or for a file object, left open."""
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            yield file, str(source)
    elif isinstance(source, RemotePath):
        with source.open() as file:
            yield file, str(source)
    else:
        yield source, str(getattr(source, "name", "the tar"))


def _read_header(file: BinaryIO, name: str, offset: int) -> tuple[str, bytes, int] | None:
    """Path, type and size of the member that begins here; None at the end of the archive."""
    header = _read_exactly(file, BLOCK, name)
    if not any(header):
        if any(_read_exactly(file, BLOCK, name)):
            raise ValueError(f"{name}: data after the end mark at byte {offset}; the archive is damaged")
        return None
    if header[257:263] != b"ustar\0":
        raise ValueError(
            f"{name}: no ustar header at byte {offset}; the archive is damaged or of another format"
        )
    checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if header[148:156] != b"%06o\0 " % checksum:
        raise ValueError(f"{name}: wrong header checksum at byte {offset}; the archive is damaged")
    path = header[:100].rstrip(b"\0").decode("ascii", "replace")
    if prefix := header[345:500].rstrip(b"\0"):
        path = f"{prefix.decode('ascii', 'replace')}/{path}"
    if not re.fullmatch(rb"[0-7]{11}", header[124:135]):
        raise ValueError(f"{name}: no size in the header at byte {offset}; the archive is damaged")
    size = int(header[124:135], 8)
    if size > MAX_MEMBER_BYTES:
        raise ValueError(f"{name}: member {path!r} claims {size} bytes, more than a shard's members have")
    return path, header[156:157], size


def _checked(path: str, kind: bytes, name: str) -> tuple[str, str]:
    """Key and extension of a member that is one of ours."""
    if kind != b"0":
        raise ValueError(f"{name}: member {path!r} is not a regular file (type {kind!r}), refused")
    try:
        return split_name(path)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_exactly(file: BinaryIO, size: int, name: str) -> bytes:
    """Read in pieces, so that memory follows what is there and not what a header claims."""
    data = file.read(min(size, _CHUNK))
    if len(data) == size:
        return data
    pieces, missing = [data], size - len(data)
    while missing and (more := file.read(min(missing, _CHUNK))):
        pieces.append(more)
        missing -= len(more)
    if missing:
        raise ValueError(f"{name} is truncated: {missing} bytes missing; {CURE}")
    return b"".join(pieces)
