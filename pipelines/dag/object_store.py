"""Folders of any object store that fsspec knows; S3 has its own (see `s3`)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.dag.storage import Folder
from pipelines.dag.writing import DigestingWriter, file_errors, store_errors


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
                self._fs.put_file(str(path), self._key(name))

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
        """Nothing: what did not arrive whole is the store's to remove."""
