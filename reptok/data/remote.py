"""Files of an object store, read in parts that stay on this machine's disk for as long as there is room.

A part is fetched once per machine, whoever of its processes asks first, and is a file of its own; those that
were not used for the longest time give way. So a training needs room for the windows that it reads, and none
for the data set.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, cast

import numpy as np

from reptok.cache import cache_root
from reptok.data.files import OPEN_FILES, Descriptor, File

PIECE = 1 << 20
"""Bytes of a part."""
GROUP = 16
"""So many parts that follow each other are asked for at once where several of them are missing."""
CONNECTIONS = 16
ATTEMPTS = 4
LOCKS = 64
LOCK, COMING = "lock-", "coming-"
STALE_SECONDS = 3600.0
RESERVE = 2 << 30
"""Bytes of the disk that are left to others."""
KEPT = 64 << 30


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
    def _pieces(self) -> _Pieces:
        version = f"{self.path.url} {self.size} {str(self._info.get('ETag', '')).strip(chr(34))}"
        return _Pieces(self.path, self.size, hashlib.sha256(version.encode()).hexdigest()[:32])

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
            self._pieces.ensure(_numbers(offsets, np.full(len(offsets), size)))
        for place, offset in zip((places * size).tolist(), offsets.tolist(), strict=True):
            self._into(bytes_of[place : place + size], offset)

    def fetch(self, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Have threads fetch the parts that hold some bytes, and go on."""
        _ahead(self._pieces, _numbers(offsets, sizes))

    def fetch_all(self) -> None:
        """Have threads fetch the whole file, and go on."""
        self.fetch(np.zeros(1, np.int64), np.full(1, self.size))

    def _fill(self, target: memoryview, offset: int) -> None:
        stop = min(offset + len(target), self.size)
        if stop > offset:
            self._pieces.ensure(range(offset // PIECE, (stop - 1) // PIECE + 1))
        self._into(target, offset)

    def _into(self, target: memoryview, offset: int) -> None:
        if offset + len(target) > self.size:
            raise self._cut(len(target), offset)
        done = 0
        while done < len(target):
            number, start = divmod(offset + done, PIECE)
            part = target[done : done + PIECE - start]
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


class _Pieces:
    """The parts of one file on this machine's disk."""

    def __init__(self, path: RemotePath, size: int, version: str):
        self._path, self._size = path, size
        self._root = _root()
        self._folder = _folder_of(path.url.rpartition("/")[0]) / version

    def ensure(self, numbers: Iterable[int]) -> None:
        """Fetch the parts that are missing; where another process is at it, wait for that."""
        groups: dict[int, list[int]] = {}
        for number in numbers:
            if not self._present(number):
                groups.setdefault(number // GROUP, []).append(number)
        for group, missing in groups.items():
            with _locked(self._root, f"{self._folder.name} {group}"):
                self._get([number for number in missing if not self._present(number)])

    def opened(self, number: int) -> Descriptor:
        """A part's file; it can be read even where the part has given way since."""
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                return _piece(self._folder / f"{number:06d}")
            self.ensure([number])  # it gave way to others since
        raise OSError(
            f"parts of {self._path} leave {self._root} sooner than they are read: there is room for "
            f"{self._path.keep / 1e9:.3g} GB, and all trainings of this machine share it"
        )

    def _present(self, number: int) -> bool:
        """Whether a part is here, whole, which a machine that went down may have left otherwise."""
        path = self._folder / f"{number:06d}"
        try:
            if path.stat().st_size != min(PIECE, self._size - number * PIECE):
                return False
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    def _get(self, missing: list[int]) -> None:
        """Ask for runs of parts, each in one request."""
        breaks = [i for i in range(1, len(missing)) if missing[i] != missing[i - 1] + 1]
        for begin, end in zip([0, *breaks], [*breaks, len(missing)], strict=True):
            if begin < end:
                start, stop = missing[begin] * PIECE, min((missing[end - 1] + 1) * PIECE, self._size)
                data = self._range(start, stop)
                _make_room(self._root, self._path.keep, len(data))
                for number in missing[begin:end]:
                    self._keep(number, data[number * PIECE - start : (number + 1) * PIECE - start])

    def _range(self, start: int, stop: int) -> bytes:
        url = self._path.url
        with answering(url) as store:
            data = cast(bytes, store.cat_file(url, start=start, end=stop))
        if len(data) != stop - start:
            raise OSError(f"{url}: {len(data)} of the {stop - start} bytes at {start} came")
        return data

    def _keep(self, number: int, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._root, prefix=COMING)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(name, self._folder / f"{number:06d}")
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def _numbers(offsets: np.ndarray, sizes: np.ndarray) -> list[int]:
    """The parts that hold some bytes, in order."""
    first, last = offsets // PIECE, (offsets + np.maximum(sizes, 1) - 1) // PIECE
    found = {n for a, b in zip(first.tolist(), last.tolist(), strict=True) for n in range(a, b + 1)}
    return sorted(found)


def _root() -> Path:
    root = cache_root() / "pieces"
    root.mkdir(parents=True, exist_ok=True)
    return root


def _folder_of(url: str) -> Path:
    """Where the parts of a remote folder's files lie."""
    return _root() / hashlib.sha256(url.encode()).hexdigest()[:32]


def forget(url: str) -> None:
    """Remove the parts of a remote folder's files from this machine."""
    shutil.rmtree(_folder_of(url), ignore_errors=True)


@lru_cache(OPEN_FILES)
def _piece(path: Path) -> Descriptor:
    return Descriptor(path)


@contextmanager
def answering(url: str) -> Iterator[Any]:
    """Give fsspec's file system of a URL; whatever it raises is an OSError.

    Stores raise much that is none: of HTTP, of connections, of their own.
    """
    import fsspec

    try:
        yield fsspec.filesystem(url.partition("://")[0])  # one for each process, which fsspec keeps
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{url}: {type(error).__name__}: {error}") from error


@contextmanager
def _locked(root: Path, what: str) -> Iterator[None]:
    """Keep other threads and processes of this machine out."""
    import fcntl

    number = int(hashlib.sha256(what.encode()).hexdigest(), 16) % LOCKS
    with open(root / f"{LOCK}{number:02d}", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_written: dict[int, int] = {}
_counting = threading.Lock()


def _make_room(root: Path, keep: int, coming: int) -> None:
    """Let the parts go that were not used for the longest time: before the first part, and now and then."""
    with _counting:
        written = _written.get(os.getpid(), keep) + coming
        _written[os.getpid()] = written if written < keep // 64 else 0
        if written < keep // 64:
            return
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(FileNotFoundError):
                path = os.path.join(folder, name)
                stat = os.stat(path)
                unfinished = name.startswith(COMING) and time.time() - stat.st_mtime < STALE_SECONDS
                if not unfinished and not name.startswith(LOCK):
                    found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    room = min(keep * 7 // 8, total + shutil.disk_usage(root).free - RESERVE) - coming
    for _, size, path in sorted(found):
        if total <= room:
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
        total -= size


_asked: SimpleQueue[tuple[_Pieces, list[int]]] = SimpleQueue()
_fetchers: dict[int, list[threading.Thread]] = {}


def _ahead(pieces: _Pieces, numbers: list[int]) -> None:
    """Have the threads of this process fetch parts, in the order in which they were asked for."""
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // GROUP, []).append(number)
    for some in groups.values():
        _asked.put((pieces, some))
    with _counting:
        if os.getpid() not in _fetchers:
            _fetchers[os.getpid()] = [threading.Thread(target=_work, daemon=True) for _ in range(CONNECTIONS)]
            for thread in _fetchers[os.getpid()]:
                thread.start()


def _work() -> None:
    while True:
        pieces, numbers = _asked.get()
        with suppress(OSError):  # who reads will meet it, and say it
            pieces.ensure(numbers)
