"""A training's folder on machines that share no disk: each has its own, and what all must see is on a store.

Checkpoints, the result, a request to stop and a failure are put there by who writes them, what makes them
whole last, and fetched by who needs them. A folder that all processes see has no such store, and then nothing
here does anything but look at it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    @property
    def patience(self) -> float:
        """Seconds between two looks at what others may have put there."""
        return 10.0 if self.url else 1.0

    def exists(self, name: str) -> bool:
        """Say whether there is a file or folder for all to see."""
        if not self.url:
            return (self.folder / name).exists()
        store = self._store()
        return bool(store.exists(f"{self.url}/{name}"))

    def names(self, name: str) -> list[str]:
        """Names of what lies in a shared folder, sorted; none if there is no such folder."""
        if not self.url:
            place = self.folder / name
            return sorted(path.name for path in place.iterdir()) if place.is_dir() else []
        try:
            return sorted(
                path.rstrip("/").rpartition("/")[2]
                for path in self._store().ls(f"{self.url}/{name}".rstrip("/"), detail=False)
            )
        except FileNotFoundError:
            return []

    def push(self, name: str, last: str = "") -> None:
        """Put a file, or a folder's files, where all see it; of those `last` comes last.

        Raises:
            OSError: The store does not take it.
        """
        if not self.url:
            return
        source, store = self.folder / name, self._store()
        files = [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.is_file())
        for path in sorted(files, key=lambda path: path.name == last):
            store.put_file(str(path), f"{self.url}/{path.relative_to(self.folder).as_posix()}")

    def pull(self, name: str) -> None:
        """Fetch a file, or a folder's files, if there are any; what is here already stays.

        Raises:
            OSError: The store does not give it.
        """
        if not self.url:
            return
        store, there = self._store(), f"{self.url}/{name}"
        prefix = store._strip_protocol(self.url) + "/"
        with self._alone():
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
        if self.url and (store := self._store()).exists(f"{self.url}/{name}"):
            store.rm(f"{self.url}/{name}", recursive=True)

    def _store(self) -> Any:
        import fsspec

        store = fsspec.filesystem(self.url.partition("://")[0])
        store.invalidate_cache()  # others write there, too
        return store

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let the processes of this machine fetch one after the other: the second one finds all there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".fetching").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def share(folder: Path, url: str) -> Shared:
    """Have a training share what lies in `folder` under a URL, with processes whose folder is another."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex[:12]}.part"
    draft.write_text(json.dumps({"url": url}))
    os.replace(draft, folder / MARK)
    return Shared(folder, url)
