"""Parts of remote files on this machine's disk, for as long as there is room.

A part is fetched once per machine, whoever of its processes asks first, and is a file of its own; those that
were not used for the longest time give way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np

from reptok.cache import cache_root, locked
from reptok.data.files import OPEN_FILES, Descriptor

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


class Pieces:
    """The parts of one file on this machine's disk."""

    def __init__(self, url: str, size: int, etag: str, keep: int):
        """Keep parts of a file.

        Args:
            url: The file's.
            size: Its bytes.
            etag: What the store calls this content; "" where it has no name for it.
            keep: Bytes of all remote files' parts that stay on this machine's disk.
        """
        self._url, self._size, self._to_keep, self._root = url, size, keep, _root()
        version = hashlib.sha256(f"{url} {size} {etag}".encode()).hexdigest()[:32]
        self._folder = _folder_of(url.rpartition("/")[0]) / version

    def ensure(self, numbers: Iterable[int]) -> None:
        """Fetch the parts that are missing; where another process is at it, wait for that."""
        for group, missing in _grouped(number for number in numbers if not self._present(number)).items():
            with locked(self._root / _lock_of(f"{self._folder.name} {group}")):
                self._get([number for number in missing if not self._present(number)])

    def ahead(self, numbers: Iterable[int]) -> None:
        """Have the threads of this process fetch parts, in the order in which they were asked for."""
        for some in _grouped(numbers).values():
            _asked.put((self, some))
        with _counting:
            if os.getpid() not in _fetchers:
                _fetchers[os.getpid()] = [
                    threading.Thread(target=_work, daemon=True) for _ in range(CONNECTIONS)
                ]
                for thread in _fetchers[os.getpid()]:
                    thread.start()

    def opened(self, number: int) -> Descriptor:
        """A part's file; it can be read even where the part has given way since."""
        for _ in range(ATTEMPTS):
            with suppress(FileNotFoundError):
                return _piece(self._folder / f"{number:06d}")
            self.ensure([number])  # it gave way to others since
        raise OSError(
            f"parts of {self._url} leave {self._root} sooner than they are read: there is room for "
            f"{self._to_keep / 1e9:.3g} GB, and all trainings of this machine share it"
        )

    def kept(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Give what was made of the file before, or make it, and keep it as a part is kept."""
        path = self._folder / name
        with suppress(FileNotFoundError):
            os.utime(path)
            return path.read_bytes()
        data = make()
        _make_room(self._root, self._to_keep, len(data))
        self._store(path, data)
        return data

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
                _make_room(self._root, self._to_keep, len(data))
                for number in missing[begin:end]:
                    part = data[number * PIECE - start : (number + 1) * PIECE - start]
                    self._store(self._folder / f"{number:06d}", part)

    def _range(self, start: int, stop: int) -> bytes:
        with answering(self._url) as store:
            data = cast(bytes, store.cat_file(self._url, start=start, end=stop))
        if len(data) != stop - start:
            raise OSError(f"{self._url}: {len(data)} of the {stop - start} bytes at {start} came")
        return data

    def _store(self, path: Path, data: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=self._root, prefix=COMING)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise


def numbers_of(offsets: np.ndarray, sizes: np.ndarray) -> list[int]:
    """The parts that hold some bytes, in order."""
    first, last = offsets // PIECE, (offsets + np.maximum(sizes, 1) - 1) // PIECE
    found = {n for a, b in zip(first.tolist(), last.tolist(), strict=True) for n in range(a, b + 1)}
    return sorted(found)


def _grouped(numbers: Iterable[int]) -> dict[int, list[int]]:
    """Parts by the group that is asked for at once."""
    groups: dict[int, list[int]] = {}
    for number in numbers:
        groups.setdefault(number // GROUP, []).append(number)
    return groups


def _lock_of(what: str) -> str:
    """Name of the file that is locked for something."""
    return f"{LOCK}{int(hashlib.sha256(what.encode()).hexdigest(), 16) % LOCKS:02d}"


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


_asked: SimpleQueue[tuple[Pieces, list[int]]] = SimpleQueue()
_fetchers: dict[int, list[threading.Thread]] = {}


def _work() -> None:
    while True:
        pieces, numbers = _asked.get()
        with suppress(OSError):  # who reads will meet it, and say it
            pieces.ensure(numbers)
