"""What writing has in common everywhere: size and digest on the way, and errors that say what to do."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CAUSES = {
    errno.ENOSPC: "no space is left on the disk; free some, or choose another place with root=...",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another place with root=...",
    errno.EROFS: "the file system is read-only; choose another place with root=...",
    errno.EACCES: "this user may not write there; choose another place with root=...",
    errno.ENAMETOOLONG: "the path is too long; choose a shorter one with root=...",
    errno.ENOTDIR: "a file lies where a folder should be; move it away, or choose another with root=...",
    errno.EEXIST: "a file lies where a folder should be; move it away, or choose another with root=...",
    errno.EISDIR: "a folder lies where a file should be; move it away, or choose another with root=...",
    errno.EPERM: "this user may not write there; choose another place with root=...",
}

_NO_INODES = (
    "the file system holds no more files (`df -i`), although there is space; remove some files, or choose "
    "another place with root=..."
)


class StorageError(OSError):
    """A place cannot be written; the message names it and says what to do."""


class Changed(OSError):
    """A file is not what the condition of a write says that it is."""


class Superseded(RuntimeError):
    """Another process has taken over what this one works on, which must not go on with it."""


class DigestingWriter(io.BufferedIOBase):
    """A sequential binary file that knows the size and SHA-256 of what was written into it."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._sha256 = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        self._raw.write(view)
        self._sha256.update(view)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self.closed:
            self._raw.flush()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


@contextmanager
def store_errors(place: str, *, writing: bool = False) -> Iterator[None]:
    """Turn the errors of an object store into one line that says how to cure them.

    A file that is not there stays a FileNotFoundError when it is read; one that is written lacks its bucket.
    """
    try:
        yield
    except (StorageError, FileExistsError, Changed):
        raise
    except FileNotFoundError as error:
        if not writing:
            raise
        raise StorageError(
            errno.ENOENT, f"cannot write {place}: there is no such bucket; create it, or correct root=..."
        ) from error
    except Exception as error:  # the client's own errors are of its own kinds
        cause = _store_cause(error)
        if cause is None:
            raise
        message = (
            f"cannot {'write' if writing else 'read'} {place}: {cause}. What is finished is kept: run again."
        )
        raise StorageError(getattr(error, "errno", None) or errno.EIO, message) from error


def _store_cause(error: Exception) -> str | None:
    kind, text = type(error).__name__, " ".join(str(error).split())[:200]
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    if isinstance(error, PermissionError):
        return f"access is denied ({text}); check the credentials in the environment and the bucket's policy"
    if kind in ("EndpointConnectionError", "ConnectTimeoutError", "ClientConnectorError") or isinstance(
        error, ConnectionError
    ):
        return f"the store cannot be reached ({text}); check the network and AWS_ENDPOINT_URL"
    if isinstance(error, OSError) and error.errno in (errno.EBUSY, errno.EREMOTEIO, errno.ETIMEDOUT):
        return f"the store is overloaded or failing ({text}); wait a little"
    return f"{kind}: {text}" if isinstance(error, (OSError, TimeoutError)) else None


@contextmanager
def file_errors(place: str) -> Iterator[None]:
    """Turn the errors a user can cure into one line that says how."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        cause = _NO_INODES if error.errno == errno.ENOSPC and _has_no_inodes(place) else _CAUSES[error.errno]
        message = f"cannot write {place}: {cause}. What is finished is kept: run again afterwards."
        raise StorageError(error.errno, message) from error


def _has_no_inodes(place: str) -> bool:
    """Whether the file system of a place has room, and no inode for another file."""
    path = Path(place)
    found = next((parent for parent in (path, *path.parents) if parent.exists()), None)
    if found is None:
        return False
    system = os.statvfs(found)
    return system.f_files > 0 and system.f_favail == 0 and system.f_bavail > 0
