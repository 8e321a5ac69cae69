"""The files of a URL list, which workers open by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol, cast

import fsspec
import pyarrow as pa

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.shards import Shard
from pipelines.urls.source import find_sources, read_source


class Listing(Protocol):
    """Where the rows of a list come from."""

    def tables(self, file: Mapping[str, str], only: Collection[str] | None) -> Iterator[pa.Table]:
        """Stream a file, known by its shard's payload, with the columns named `only`, or all."""


@dataclass(frozen=True)
class UrlList:
    """The files of a list; picklable, so that workers open them.

    Attributes:
        columns: our column names to the files', where they differ.
        artifacts: those that hold files, by kind.
    """

    columns: Mapping[str, str]
    artifacts: Mapping[str, Artifact] = field(default_factory=dict)

    def files(self, places: Sequence[str]) -> list[Shard]:
        """One shard for each file, in order.

        Args:
            places: files, folders or globs, by any URL of fsspec, or artifact:KIND/FILE.

        Raises:
            FileNotFoundError: there is none at one of them.
        """
        made = [place.removeprefix(ARTIFACT).partition("/") for place in places if place.startswith(ARTIFACT)]
        found = [(name, {"artifact": kind, "file": name}) for kind, _, name in made]
        others = [place for place in places if not place.startswith(ARTIFACT)]
        for system, path in find_sources(others) if others else ():
            found.append((path, {"url": system.unstrip_protocol(path), "file": path}))
        return [Shard(index, name, 1, payload) for index, (name, payload) in enumerate(found)]

    def size(self, file: Mapping[str, str]) -> int | None:
        """Bytes of a file, None if nobody says."""
        if "artifact" in file:
            return self.artifacts[file["artifact"]].folder.size(file["file"])
        system, path = fsspec.core.url_to_fs(file["url"])
        return cast("int | None", system.info(path).get("size"))

    def tables(self, file: Mapping[str, str], only: Collection[str] | None) -> Iterator[pa.Table]:
        """Stream a file, known by its shard's payload (see `read_source`).

        Args:
            file: the payload.
            only: the columns to read; all by default.
        """
        columns = {"url": "url", "text": "text", **self.columns}
        with self._open(file) as stream:
            yield from read_source(stream, file["file"], columns, only)

    def head(self, file: Mapping[str, str]) -> pa.Table:
        """A table without rows that has a file's columns."""
        return next(self.tables(file, None)).slice(0, 0)

    def _open(self, file: Mapping[str, str]) -> BinaryIO:
        if "artifact" in file:
            return self.artifacts[file["artifact"]].open(file["file"])
        system, path = fsspec.core.url_to_fs(file["url"])
        return cast(BinaryIO, system.open(path, "rb"))
