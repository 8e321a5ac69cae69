"""A training's folder on machines that share no disk: each has its own, and what all must see is on a store.

Checkpoints, the result, a request to stop and a failure are put there by who writes them, what makes them
whole last, and fetched by who needs them. A folder that all processes see has no such store, and then nothing
here does anything but look at it.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reptok.cache import locked
from reptok.data.pieces import answering

MARK = "shared.json"


@dataclass(frozen=True)
class Shared:
    """A training's folder, and the address under which its processes share parts of it.

    Attributes:
        folder: On this machine.
        url: Where fsspec finds what all processes see; "" where that is `folder`.
    """

    folder: Path
    url: str = ""

    @classmethod
    def of(cls, folder: Path) -> Shared:
        """What `share` said of the folder; nothing is shared elsewhere by default."""
        with suppress(FileNotFoundError):
            return cls(folder, json.loads((folder / MARK).read_text())["url"])
        return cls(folder)

    def below(self, name: str) -> Shared:
        """One of its folders."""
        return Shared(self.folder / name, self.url and f"{self.url}/{name}")

    def exists(self, name: str) -> bool:
        """Say whether there is a file or folder for all to see."""
        if not self.url:
            return (self.folder / name).exists()
        with self._store() as store:
            return bool(store.exists(f"{self.url}/{name}"))

    def sees(self, name: str) -> bool:
        """Say whether there is such a file, as far as one can see: a store that does not answer has none."""
        try:
            return self.exists(name)
        except OSError:
            return False

    def names(self, name: str) -> list[str]:
        """Names of what lies in a shared folder, sorted; none if there is no such folder."""
        if not self.url:
            place = self.folder / name
            return sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        try:
            with self._store() as store:
                found = store.ls(f"{self.url}/{name}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def push(self, name: str, last: str = "") -> None:
        """Put a file, or a folder's files, where all see it; of those `last` comes last.

        Raises:
            OSError: There is nothing to put, or the store does not take it.
        """
        if not self.url:
            return
        source = self.folder / name
        files = [p for p in sorted(source.rglob("*")) if p.is_file()] if source.is_dir() else [source]
        with self._store() as store:
            for path in sorted(files, key=lambda path: path.name == last):
                store.put_file(str(path), f"{self.url}/{path.relative_to(self.folder).as_posix()}")

    def put(self, name: str, data: bytes) -> None:
        """Put a small file on the store, and not in the folder.

        Raises:
            OSError: The store does not take it.
        """
        with self._store() as store:
            store.pipe_file(f"{self.url}/{name}", data)

    def pull(self, name: str) -> None:
        """Fetch a file, or a folder's files, if there are any; what is here already stays.

        Raises:
            OSError: The store does not give it.
        """
        if not self.url:
            return
        there = f"{self.url}/{name}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".fetching"), self._store() as store:  # the second one finds all there
            prefix = store._strip_protocol(self.url) + "/"
            for key, info in store.find(there, detail=True).items():
                path = self.folder / key.removeprefix(prefix)
                if info["type"] == "file" and not (path.exists() and path.stat().st_size == info["size"]):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    draft = path.with_name(f".{uuid.uuid4().hex[:12]}.part")
                    store.get_file(key, str(draft))
                    os.replace(draft, path)

    def remove(self, name: str) -> None:
        """Remove a file or folder, here and for all."""
        place = self.folder / name
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        if self.url:
            with self._store() as store:
                if store.exists(f"{self.url}/{name}"):
                    store.rm(f"{self.url}/{name}", recursive=True)

    @contextmanager
    def _store(self) -> Iterator[Any]:
        with answering(self.url) as store:
            store.invalidate_cache()  # others write there, too
            yield store


def share(folder: Path, url: str) -> Shared:
    """Have a training share what lies in `folder` under a URL, with processes whose folder is another."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex[:12]}.part"
    draft.write_text(json.dumps({"url": url}))
    os.replace(draft, folder / MARK)
    return Shared(folder, url)
