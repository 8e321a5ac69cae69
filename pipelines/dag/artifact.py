"""An artifact: an immutable folder whose manifest, written last, lists every file with size and SHA-256.

{root}/{kind}/{fingerprint}/manifest.json   a folder without it is unfinished and nobody reads it
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.manifest import MANIFEST, ManifestError, read_manifest
from pipelines.dag.storage import Folder, LocalFolder, many, open_folder
from reptok.cache import cache_root

__all__ = ["MANIFEST", "Artifact", "ManifestError", "digest_of", "faults"]


@dataclass(frozen=True)
class Artifact:
    """A published artifact; small and picklable, so that it may travel to workers.

    Attributes:
        kind: what it is ("dataset"), the `output` of the stage that made it.
        fingerprint: 16 hex digits.
        url: its folder.
    """

    kind: str
    fingerprint: str
    url: str

    @cached_property
    def folder(self) -> Folder:
        return open_folder(self.url)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the artifact is and what it is made of.

        Keys: stage, version, kind, fingerprint, config, models {key of the config: commit on the hub}, inputs
        {kind: fingerprint}, input_digests, stats, files {name: {size, sha256}}, digest, seconds, git_commit,
        run_id, created.

        Raises:
            FileNotFoundError: there is none.
            ManifestError: it is damaged.
        """
        try:
            return read_manifest(self.folder)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{self.url} holds no published {self.kind}: it has no {MANIFEST}"
            ) from None

    @property
    def published(self) -> bool:
        """Whether it has a manifest, and one that can be read."""
        try:
            return self.folder.exists(MANIFEST) and bool(self.manifest)
        except ManifestError:
            return False

    def __getstate__(self) -> dict[str, Any]:
        return {"kind": self.kind, "fingerprint": self.fingerprint, "url": self.url}

    @property
    def digest(self) -> str:
        """Digest of the files' names and contents: two artifacts with the same digest hold the same bytes."""
        return cast(str, self.manifest["digest"])

    def files(self, pattern: str = "*") -> list[str]:
        """Relative names of the files that match a shell pattern (`*` matches slashes too), sorted."""
        return sorted(name for name in self.manifest["files"] if fnmatch(name, pattern))

    def url_of(self, name: str = "") -> str:
        return self.folder.url_of(name)

    def open(self, name: str) -> BinaryIO:
        """Open a file of the manifest for reading."""
        self._listed(name)
        return self.folder.open_lasting(name)

    def open_whole(self, name: str) -> BinaryIO:
        """The same, of a file of which most will be read."""
        self._listed(name)
        return self.folder.open_whole(name)

    def read_bytes(self, name: str) -> bytes:
        with self.open(name) as file:
            return file.read()

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def local_path(self, name: str = "") -> Path:
        """Path of a file, or of a folder with all below it; a remote one is first copied to a cache.

        The cache lies under `REPTOK_CACHE` (default `~/.cache/reptok`). A copy whose size or SHA-256 is wrong
        is an OSError.
        """
        if isinstance(self.folder, LocalFolder):
            return self.folder.path(name)
        cache = LocalFolder(str(cache_root() / "artifacts" / self.kind / self.fingerprint))
        prefix = f"{name}/" if name else ""
        for file in [name] if name in self.manifest["files"] else self.files():
            if file == name or file.startswith(prefix):
                self._copy(file, cache)
        return cache.path(name)

    def __fspath__(self) -> str:
        """Be a folder to whatever opens one: `local_path` of all files."""
        return os.fspath(self.local_path())

    def _copy(self, name: str, cache: LocalFolder) -> None:
        entry = self.manifest["files"][name]
        if cache.size(name) == entry["size"]:
            return
        with self.folder.open(name) as source, cache.create(name) as target:
            shutil.copyfileobj(cast(io.BufferedIOBase, source), target, 1 << 20)
            if target.sha256 != entry["sha256"]:
                raise OSError(f"{self.url_of(name)} is damaged: its SHA-256 is not the one of its manifest")

    def _listed(self, name: str) -> None:
        if name not in self.manifest["files"]:
            raise FileNotFoundError(f"{self.kind} {self.fingerprint} has no file {name!r} ({self.url})")


def faults(artifact: Artifact) -> list[str]:
    """Compare a published artifact with its manifest, byte by byte; one line per fault, none if sound."""
    try:
        listed = artifact.manifest["files"]
    except ManifestError as error:
        return [str(error)]
    if digest_of(listed) != artifact.digest:
        return [f"{artifact.url_of(MANIFEST)}: the manifest was changed after it was written"]
    sizes = artifact.folder.sizes()

    def fault(name: str) -> str:
        try:
            return _fault(artifact.folder, name, listed[name], sizes.get(name))
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"

    names = sorted(listed)
    found = zip(names, many(fault, names), strict=True)
    return [f"{artifact.url_of(name)}: {what}" for name, what in found if what]


def _fault(folder: Folder, name: str, entry: dict[str, Any], size: int | None) -> str:
    if size is None:
        return "missing"
    if size != entry["size"]:
        return f"{size} bytes where the manifest says {entry['size']}"
    return "" if folder.sha256(name) == entry["sha256"] else "its SHA-256 is not the manifest's"


def digest_of(files: dict[str, Any]) -> str:
    """Digest of a manifest's table of files."""
    return hashlib.sha256(canonical_json(files)).hexdigest()
