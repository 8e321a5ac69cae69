"""The folder in which a stage writes its artifact. Nobody reads it before the runner has published it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipelines.dag.artifact import MANIFEST, digest_of
from pipelines.dag.stage_log import StageLog
from pipelines.dag.storage import Folder, LocalFolder, many, open_folder
from pipelines.dag.writing import DigestingWriter
from reptok.cache import cache_root

if TYPE_CHECKING:
    from pipelines.dag.earlier import Earlier
    from pipelines.dag.fence import Fence

SCRATCH = "_scratch"
MADE = "made.json"
"""Beside the manifest: which shard is made of what (see `earlier.py`); no part of the artifact."""


class Workspace:
    """Where a stage writes; picklable (without its log), so that workers write in it too.

    Attributes:
        url: the folder, which becomes the artifact.
        fingerprint: the artifact's fingerprint.
        log: the stage's MLflow run, or something that swallows every call.
        digests: size and SHA-256 of the files written through this object.
        summaries: what the files' writers say of them, by file: small JSON values that stand in the shards'
            done records, for `ShardStage.finish` to know without reading the files again.
        earlier: what earlier artifacts have, for a job that takes over rows of theirs; None for none.
        fenced: whether the storage keeps conditions, so that workers' writes are fenced (see `fence`).
        left_out: names that are not published, should somebody write them.
    """

    earlier: Earlier | None = None

    def __init__(
        self, url: str, fingerprint: str = "", log: StageLog | None = None, *, fenced: bool = False
    ) -> None:
        self.folder: Folder = open_folder(url)
        self.url = self.folder.url
        self.fingerprint = fingerprint
        self.log = log or StageLog()
        self.digests: dict[str, dict[str, Any]] = {}
        self.summaries: dict[str, Any] = {}
        self.fenced = fenced
        self._fence: Fence | None = None
        self.left_out: Set[str] = frozenset()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "fingerprint": self.fingerprint, "fenced": self.fenced}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"], state["fingerprint"], fenced=state["fenced"])  # type: ignore[misc]

    def behind(self, fence: Fence | None) -> Workspace:
        """Return this workspace, whose files go through a fence from now on."""
        self._fence = fence
        return self

    @contextmanager
    def create(self, name: str) -> Iterator[DigestingWriter]:
        """Write a file sequentially; it appears, whole and synced, when the block ends well."""
        if name == MANIFEST:
            raise ValueError(f"{MANIFEST} is written by the runner alone")
        with self._fence.create(name) if self._fence else self.folder.create(name) as file:
            yield file
        self.digests[name] = {"size": file.size, "sha256": file.sha256}

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.create(name) as file:
            file.write(data)

    def write_json(self, name: str, value: Any) -> None:
        """Write JSON with sorted keys, so that equal values are equal bytes."""
        self.write_bytes(
            name, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        )

    def exists(self, name: str) -> bool:
        return self.folder.exists(name)

    def read_bytes(self, name: str) -> bytes:
        return self.folder.read_bytes(name)

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def files(self) -> list[str]:
        """Names of the finished files that would be published, sorted."""
        return [name for name in self.folder.sizes() if published(name) and name not in self.left_out]

    def url_of(self, name: str = "") -> str:
        return self.folder.url_of(name)

    def local_path(self, name: str = "") -> Path:
        """A local path of this workspace; of a remote one, a place to `publish_folder` from."""
        if isinstance(self.folder, LocalFolder):
            return self.folder.path(name)
        return self.scratch / "local" / name

    @property
    def scratch(self) -> Path:
        """A local folder that survives a kill, is never published and goes when the artifact is published.

        For remote storage it lies in this machine's cache: what several machines must see goes to
        `scratch_url`.
        """
        if isinstance(self.folder, LocalFolder):
            path = self.folder.path(SCRATCH)
        else:
            path = cache_root() / "scratch" / self.fingerprint
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def scratch_url(self) -> str:
        """Unpublished folder on the same storage as the workspace (names under it start with `_scratch/`)."""
        return self.folder.url_of(SCRATCH)

    def publish_folder(self, local_folder: str | os.PathLike[str], name: str = "") -> None:
        """Copy the files of a local folder into this workspace under `name/`, each one atomically.

        Nothing is copied when that folder is `local_path(name)` of a local workspace already.
        """
        source = Path(local_folder)
        if isinstance(self.folder, LocalFolder) and source.resolve() == self.folder.path(name).resolve():
            return
        for path in sorted(source.rglob("*")):
            if path.is_file():
                relative = path.relative_to(source).as_posix()
                with (
                    path.open("rb") as file,
                    self.create(f"{name}/{relative}" if name else relative) as target,
                ):
                    shutil.copyfileobj(file, cast(Any, target), 1 << 20)

    def remove_scratch(self) -> None:
        self.folder.remove(SCRATCH)
        if not isinstance(self.folder, LocalFolder):
            shutil.rmtree(self.scratch, ignore_errors=True)

    def publish(self, description: dict[str, Any]) -> None:
        """Write the manifest, last of all: `description` (stage, config, ...) and the table of all files."""
        there = self.folder.sizes().items()
        sizes = {name: size for name, size in there if published(name) and name not in self.left_out}

        def entry(name: str) -> dict[str, Any]:
            known, size = self.digests.get(name), sizes[name]
            sha256 = known["sha256"] if known and known["size"] == size else self.folder.sha256(name)
            return {"size": size, "sha256": sha256}

        table = dict(zip(sizes, many(entry, sizes), strict=True))
        manifest = {**description, "files": table, "digest": digest_of(table)}
        with self._fence.create(MANIFEST) if self._fence else self.folder.create(MANIFEST) as file:
            file.write((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def published(name: str) -> bool:
    """Whether a file of a workspace belongs to the artifact."""
    return name not in (MANIFEST, MADE) and not name.startswith(f"{SCRATCH}/")
