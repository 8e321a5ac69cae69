"""Writes on S3 that cannot take the place of what a later attempt has made.

A file is put on the condition that there is none. Where there is one with other bytes, left by an attempt
that was killed or written by one that is still at work, the attempt must first hold what it works on, and
then puts its file in the place of the very one that it has seen. Who has lost hold stops.

A shard is held by a claim in the place of its done record, which is made when it is first needed; its record
takes the place of the claim, or of nothing. So of several attempts one is recorded, and its files are there:
the others could not write any more. An artifact is held by its lock.

ETags tell contents apart, and not when they were written: among attempts at one shard whose bytes differ, a
third that gives the bytes of the first is not told from it.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from pipelines.dag.manifest import MANIFEST
from pipelines.dag.s3 import S3Folder
from pipelines.dag.writing import Changed, DigestingWriter, Superseded

CLAIM = "claim"
ATTEMPTS = 8
ABSENT = {"IfNoneMatch": "*"}


class Fence(ABC):
    """The way of one process's files to S3.

    Args:
        folder: the workspace.
    """

    def __init__(self, folder: S3Folder) -> None:
        self.folder = folder

    @abstractmethod
    def hold(self) -> None:
        """Make sure that what stands there may be written over.

        Raises:
            Superseded: it may not.
        """

    def create(self, name: str) -> AbstractContextManager[DigestingWriter]:
        """See `Folder.create`."""
        return self.folder.create(name, self.put)

    def put(self, key: str, path: Path) -> None:
        """Put a file, over another only after a look."""
        condition = ABSENT
        for _ in range(ATTEMPTS):
            try:
                self.folder.put(key, path, **condition)
                return
            except Changed:
                found = self.folder.etag(key)
            if found.strip('"') == _md5(path):
                return  # the same bytes, whoever wrote them
            self.hold()
            condition = {"IfMatch": found} if found else ABSENT
        raise Superseded(f"{key} is written by another process again and again")


class ArtifactFence(Fence):
    """Whoever holds the lock of an artifact.

    Args:
        folder: the workspace.
        check: raises `Superseded` if the lock is lost.
    """

    def __init__(self, folder: S3Folder, check: Callable[[], None]) -> None:
        super().__init__(folder)
        self._check = check

    def hold(self) -> None:
        self._check()


class ShardFence(Fence):
    """One attempt at a shard.

    Args:
        folder: the workspace.
        record: name of the shard's done record.
        again: whether this attempt takes the place of one that may still be at work.
    """

    def __init__(self, folder: S3Folder, record: str, *, again: bool) -> None:
        super().__init__(folder)
        self._record, self._claim = record, ""
        if again:
            self._take()

    def hold(self) -> None:
        if not self._claim:
            self._claim = self._claimed(**ABSENT)
            if self.folder.exists(MANIFEST):  # and with the work the records went
                self.folder.remove(self._record)
                raise Superseded("the artifact was published meanwhile")
        elif self.folder.etag(self.folder.key(self._record)) != self._claim:
            raise Superseded("another process has taken over this shard")

    def commit(self, record: bytes) -> dict[str, Any]:
        """Write the done record, unless the shard is done by now; returns the one that counts.

        Raises:
            Superseded: another process has taken over the shard, and has not done it yet.
        """
        condition = {"IfMatch": self._claim} if self._claim else ABSENT
        try:
            self.folder.put_bytes(self._record, record, **condition)
        except Changed:
            if (done := self._done()) is None:
                raise Superseded("another process has taken over this shard") from None
            return done
        counted: dict[str, Any] = json.loads(record)
        return counted

    def _take(self) -> None:
        """Take over the claim of another attempt, if there is one."""
        try:
            data, etag, _ = self.folder.read_tagged(self._record)
        except FileNotFoundError:
            return
        if CLAIM in json.loads(data):
            self._claim = self._claimed(IfMatch=etag)

    def _claimed(self, **condition: str) -> str:
        claim = json.dumps({CLAIM: uuid.uuid4().hex}).encode()
        try:
            return self.folder.put_bytes(self._record, claim, **condition)
        except Changed:
            raise Superseded("another process is at work on this shard, or has done it") from None

    def _done(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads(self.folder.read_bytes(self._record))
        except FileNotFoundError:
            return None
        return None if CLAIM in found else found


def _md5(path: Path) -> str:
    """The ETag of a file that was put in one request."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5", _bufsize=1 << 20).hexdigest()
