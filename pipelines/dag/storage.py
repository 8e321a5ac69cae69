"""Folders on a local disk or an object store behind one interface, addressed by URL (fsspec).

A file appears under its name whole or not at all: locally it is written beside its place, synced and renamed;
on an object store it is spooled locally and put in one piece. Credentials come from the environment, never
from a config.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pipelines.dag.redaction import redacted
from pipelines.dag.writing import DigestingWriter, file_errors

TEMPORARY_SUFFIX = ".part"
AT_A_TIME = 16

T = TypeVar("T")
R = TypeVar("R")


class Folder(ABC):
    """A folder of files named by relative paths with forward slashes."""

    url: str

    def url_of(self, name: str) -> str:
        return f"{self.url}/{checked_name(name)}" if name else self.url

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; FileNotFoundError if there is none."""

    @abstractmethod
    def create(self, name: str) -> Any:
        """Context manager yielding a `DigestingWriter`; the file appears, whole, when the block ends well."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Size in bytes, or None if there is no such file."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Every finished file below this folder with its size, sorted by name."""

    @abstractmethod
    def children(self) -> list[str]:
        """Names of the direct sub-folders, sorted."""

    @abstractmethod
    def modified(self, name: str) -> float:
        """Time of a file's last change, in seconds since the epoch."""

    @abstractmethod
    def remove(self, name: str = "") -> None:
        """Remove a file or a folder with all below it; nothing happens if there is none."""

    @abstractmethod
    def move_to(self, other: Folder) -> None:
        """Move this folder to a place that does not exist yet (`other` lies on the same storage)."""

    def open_lasting(self, name: str) -> BinaryIO:
        """Open a file that is never written again, of which something may be known from the last time."""
        return self.open(name)

    def open_whole(self, name: str) -> BinaryIO:
        """Open a file of which most will be read, wherever that begins."""
        return self.open(name)

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes from `start` to before `stop`, or to the end; of a remote file no others are fetched."""
        with self.open(name) as file:
            file.seek(start)
            return file.read(stop - start)

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.create(name) as file:
            file.write(data)

    @abstractmethod
    def remove_unfinished(self) -> None:
        """Remove what a killed writer left and no reader sees; only for the holder of the folder's lock."""

    def exists(self, name: str) -> bool:
        return self.size(name) is not None

    def sha256(self, name: str) -> str:
        with self.open(name) as file:
            return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()


@dataclass(frozen=True)
class LocalFolder(Folder):
    """A folder of the local (or a network) file system; `url` is its absolute path."""

    url: str

    def path(self, name: str = "") -> Path:
        return Path(self.url, checked_name(name)) if name else Path(self.url)

    def open(self, name: str) -> BinaryIO:
        return open(self.path(name), "rb")

    @contextmanager
    def create(self, name: str) -> Iterator[DigestingWriter]:
        target = self.path(name)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}{TEMPORARY_SUFFIX}")
        try:
            with file_errors(str(target)):
                os.makedirs(target.parent, exist_ok=True)
                with open(temporary, "xb") as raw:
                    yield DigestingWriter(raw)
                    raw.flush()
                    os.fsync(raw.fileno())
                os.replace(temporary, target)
                _sync_directory(target.parent)
        except BaseException:
            with suppress(OSError):  # what went wrong says more
                temporary.unlink(missing_ok=True)
            raise

    def size(self, name: str) -> int | None:
        path = self.path(name)
        with file_errors(str(path)):  # a root may be no path that can exist
            return path.stat().st_size if path.is_file() else None

    def sizes(self) -> dict[str, int]:
        found = {}
        for directory, _, names in os.walk(self.url):
            for name in names:
                path = Path(directory, name)
                if not name.endswith(TEMPORARY_SUFFIX) and path.is_file():
                    found[path.relative_to(self.url).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def children(self) -> list[str]:
        path = Path(self.url)
        return sorted(child.name for child in path.iterdir() if child.is_dir()) if path.is_dir() else []

    def modified(self, name: str) -> float:
        return self.path(name).stat().st_mtime

    def remove(self, name: str = "") -> None:
        path = self.path(name)
        with file_errors(str(path)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def move_to(self, other: Folder) -> None:
        with file_errors(other.url):
            os.makedirs(Path(other.url).parent, exist_ok=True)
            os.rename(self.url, other.url)
            _sync_directory(Path(self.url).parent)

    def remove_unfinished(self) -> None:
        for directory, _, names in os.walk(self.url):
            for name in names:
                if name.endswith(TEMPORARY_SUFFIX):
                    Path(directory, name).unlink(missing_ok=True)


def open_folder(url: str) -> Folder:
    """The folder at a URL: `runs`, `file:///data/runs`, `s3://bucket/runs`, ..."""
    if not url:
        raise ValueError("a storage URL must not be empty (for example root=runs)")
    scheme, separator, rest = url.partition("://")
    if separator and ("@" in rest.partition("/")[0] or redacted(url) != url):
        raise ValueError(
            "a storage URL holds no credentials: they come from the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    if not separator or scheme in ("file", "local"):
        return LocalFolder(os.path.abspath(os.path.expanduser(rest if separator else url)))
    if scheme == "s3":
        from pipelines.dag.s3 import S3Folder

        return S3Folder(url.rstrip("/"))
    from pipelines.dag.object_store import ObjectFolder

    return ObjectFolder(url.rstrip("/"))


def many(function: Callable[[T], R], items: Iterable[T], at_a_time: int = AT_A_TIME) -> list[R]:
    """Apply a function that waits for the storage to many things, some at a time; results are in order."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(function, items))


def checked_name(name: str) -> str:
    """A relative name that stays inside its folder, or ValueError."""
    if (
        not name
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(p in ("", ".", "..") for p in name.split("/"))
    ):
        raise ValueError(f"{name!r} is not a relative file name with forward slashes")
    return name


def _sync_directory(path: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
