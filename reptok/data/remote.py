"""Files of an object store, read in parts that stay on this machine's disk for as long as there is room.

So a training needs room for the windows that it reads, and none for the data set (see `pieces`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from reptok.data import pieces
from reptok.data.files import File
from reptok.data.pieces import Pieces, answering, numbers_of

KEPT = 64 << 30
READERS = 16
"""Files read at a time: on an object store that is latency, not work."""

T = TypeVar("T")
R = TypeVar("R")


class RemotePath:
    """A file or folder at a URL that fsspec opens (`s3://bucket/folder`); credentials are the environment's.

    It has of a path what reading a data set needs.

    Attributes:
        url: Its address.
        keep: Bytes of all remote files' parts that stay on this machine's disk, under `REPTOK_CACHE`
            (`~/.cache/reptok`).
    """

    def __init__(self, url: str, keep: int = KEPT):
        self.url, self.keep = url.rstrip("/"), keep

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}", self.keep)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"RemotePath({self.url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other.url == self.url

    def __hash__(self) -> int:
        return hash(self.url)

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.url.rpartition("/")[2]

    def keeping(self, size: int) -> RemotePath:
        """Return the same place with another bound on what stays on the disk."""
        return RemotePath(self.url, size)

    def is_file(self) -> bool:
        """Say whether there is such a file.

        Raises:
            OSError: The store does not answer.
        """
        try:
            with answering(self.url) as store:
                return bool(store.info(self.url)["type"] == "file")
        except FileNotFoundError:
            return False

    exists = is_file

    def read_bytes(self) -> bytes:
        """Fetch a small file whole."""
        with answering(self.url) as store:
            return cast(bytes, store.cat_file(self.url))

    def read_text(self) -> str:
        """Fetch a small file of text whole."""
        return self.read_bytes().decode()

    def file(self) -> RemoteFile:
        """Open the file for reads at places."""
        return RemoteFile(self)

    def open(self) -> BinaryIO:
        """Open the file for reading from beginning to end, or what is sought of it."""
        return cast(BinaryIO, io.BufferedReader(_Sequence(self.file())))


DataPath = Path | RemotePath
"""Where a data set lies."""
Located = os.PathLike[str] | RemotePath
"""The same, as whoever describes a training may say it."""


def data_path(text: str) -> DataPath:
    """Return what a path or a URL names."""
    return RemotePath(text) if "://" in text else Path(text)


def readable(place: DataPath) -> Path | BinaryIO:
    """Return what readers of whole files take: a path, or a remote file that is open."""
    return place.open() if isinstance(place, RemotePath) else place


def some_at_a_time(read: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What is read of each, in order, a few ahead of their use."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(items), READERS):
            yield from readers.map(read, items[start : start + READERS])


def keeping(place: Located, size: int) -> DataPath:
    """Return a place as a loader takes it; parts of it take so many bytes of the disk if it is remote."""
    return place.keeping(size) if isinstance(place, RemotePath) else Path(place)


def file_at(place: DataPath) -> File:
    """Open a local or remote file for reads at places."""
    return place.file() if isinstance(place, RemotePath) else File(place)


class RemoteFile(File):
    """A file of an object store that stays as it is while it is read."""

    def __init__(self, path: RemotePath):
        """Read from `path`; nothing is asked of the store yet."""
        self.path: Any = path

    @cached_property
    def size(self) -> int:
        """Bytes of the file.

        Raises:
            OSError: There is no such file, or the store does not answer.
        """
        return int(self._info["size"])

    @cached_property
    def _info(self) -> dict[str, Any]:
        with answering(self.path.url) as store:
            return cast(dict[str, Any], store.info(self.path.url))

    @cached_property
    def _pieces(self) -> Pieces:
        etag = str(self._info.get("ETag", "")).strip('"')
        return Pieces(self.path.url, self.size, etag, self.path.keep)

    def read(self, offset: int, size: int) -> bytes:
        """See :meth:`File.read`; parts that are missing are fetched first."""
        data = bytearray(size)
        self._fill(memoryview(data), offset)
        return bytes(data)

    def read_rows(self, array: np.ndarray, places: np.ndarray, offsets: np.ndarray) -> None:
        """See :meth:`File.read_rows`."""
        bytes_of = array.reshape(len(array), -1).data.cast("B")
        size = len(bytes_of) // len(array)
        if offsets.max() + size <= self.size:  # else it is cut, which is said below
            self._pieces.ensure(numbers_of(offsets, np.full(len(offsets), size)))
        for place, offset in zip((places * size).tolist(), offsets.tolist(), strict=True):
            self._into(bytes_of[place : place + size], offset)

    def fetch(self, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Have threads fetch the parts that hold some bytes, and go on."""
        self._pieces.ahead(numbers_of(offsets, sizes))

    def fetch_all(self) -> None:
        """Have threads fetch the whole file, and go on."""
        self.fetch(np.zeros(1, np.int64), np.full(1, self.size))

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return what follows from the file, as it was made the first time on this machine.

        Args:
            name: What it is, among what is kept of this file.
            make: Makes it where it is not there, or gave way to others since.
        """
        return self._pieces.kept(name, make)

    def _fill(self, target: memoryview, offset: int) -> None:
        stop = min(offset + len(target), self.size)
        if stop > offset:
            self._pieces.ensure(range(offset // pieces.PIECE, (stop - 1) // pieces.PIECE + 1))
        self._into(target, offset)

    def _into(self, target: memoryview, offset: int) -> None:
        if offset + len(target) > self.size:
            raise self._cut(len(target), offset)
        done = 0
        while done < len(target):
            number, start = divmod(offset + done, pieces.PIECE)
            part = target[done : done + pieces.PIECE - start]
            piece = self._pieces.opened(number)  # referred to while it is read: others may take its place
            if os.preadv(piece.number, [part], start) != len(part):
                raise self._cut(len(target), offset)
            done += len(part)


class _Sequence(io.RawIOBase):
    """The file as a stream."""

    def __init__(self, file: RemoteFile):
        self._file, self._at = file, 0
        self.name = str(file.path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._file.size - self._at))
        self._file._fill(memoryview(buffer)[:size], self._at)
        self._at += size
        return size
