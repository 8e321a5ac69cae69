"""Folders on a local disk or an object store behind one interface, addressed by URL (fsspec).

A file appears under its name whole or not at all: locally it is written beside its place, synced and renamed;
on an object store it is spooled locally and put in one piece. Credentials come from the environment, never
from a config.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.dag.redaction import redacted
from pipelines.dag.writing import DigestingWriter, StorageError, file_errors, store_errors

TEMPORARY_SUFFIX = ".part"
PART_BYTES = 64 * 2**20
"""Larger objects are put in parts, and appear when all of them have arrived."""


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


@dataclass(frozen=True)
class ObjectFolder(Folder):
    """A prefix of an object store, where a put is atomic (any fsspec file system but the local one)."""

    url: str

    @cached_property
    def _fs(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self.url)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def _key(self, name: str = "") -> str:
        return cast(str, self._fs._strip_protocol(self.url_of(name)))

    def open(self, name: str) -> BinaryIO:
        with store_errors(self.url_of(name)):
            return cast(BinaryIO, self._fs.open(self._key(name), "rb"))

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        if start == stop:
            return b""
        with store_errors(self.url_of(name)):
            return cast(bytes, self._fs.cat_file(self._key(name), start=start, end=stop))

    @contextmanager
    def create(self, name: str) -> Iterator[DigestingWriter]:
        with tempfile.TemporaryDirectory(prefix="reptok-") as spool:
            path = Path(spool, "object")
            with file_errors(str(path)), open(path, "xb") as raw:
                yield DigestingWriter(raw)
            with store_errors(self.url_of(name), writing=True):
                parts = {"chunksize": PART_BYTES} if "s3" in self._fs.protocol else {}
                self._fs.put_file(str(path), self._key(name), **parts)

    def size(self, name: str) -> int | None:
        try:
            with store_errors(self.url_of(name)):
                self._fs.invalidate_cache()
                info = self._fs.info(self._key(name))
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def sizes(self) -> dict[str, int]:
        prefix = self._key().rstrip("/") + "/"
        with store_errors(self.url):
            self._fs.invalidate_cache()
            found = self._fs.find(self._key(), detail=True)
        return dict(sorted((key.removeprefix(prefix), int(info["size"])) for key, info in found.items()))

    def children(self) -> list[str]:
        try:
            with store_errors(self.url):
                self._fs.invalidate_cache()
                entries = self._fs.ls(self._key(), detail=True)
        except FileNotFoundError:
            return []
        return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def modified(self, name: str) -> float:
        return float(self._fs.modified(self._key(name)).timestamp())

    def remove(self, name: str = "") -> None:
        with store_errors(self.url_of(name), writing=True):
            self._fs.invalidate_cache()
            if self._fs.exists(self._key(name)):
                self._fs.rm(self._key(name), recursive=True)

    def move_to(self, other: Folder) -> None:
        names = list(self.sizes())
        with store_errors(other.url, writing=True):
            for name in names:
                self._fs.copy(self._key(name), self._fs._strip_protocol(other.url_of(name)))
            for name in sorted(names, key=lambda name: name != "manifest.json"):
                self._fs.rm_file(self._key(name))

    def take(self, other: ObjectFolder, name: str, named: str) -> None:
        """Let the store copy an object of another folder."""
        with store_errors(self.url_of(named), writing=True):
            self._fs.copy(other._key(name), self._key(named))

    def remove_unfinished(self) -> None:
        if "s3" not in self._fs.protocol:
            return
        bucket, _, prefix = self._key().partition("/")
        try:
            with store_errors(self.url):
                listed = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/")
                for upload in listed.get("Uploads", []):
                    self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        except (StorageError, FileNotFoundError):
            return  # not allowed to everybody: a rule of the bucket may remove old uploads, too


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
    return ObjectFolder(url.rstrip("/"))


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
