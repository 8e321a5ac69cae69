"""What writing has in common everywhere: size and digest on the way, and errors that say what to do."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CAUSES = {
    errno.ENOSPC: "no space is left on the disk; free some, or choose another place with root=...",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another place with root=...",
    errno.EROFS: "the file system is read-only; choose another place with root=...",
    errno.EACCES: "this user may not write there; choose another place with root=...",
    errno.EPERM: "this user may not write there; choose another place with root=...",
}


class StorageError(OSError):
    """A place cannot be written; the message names it and says what to do."""


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
def explained(place: str) -> Iterator[None]:
    """Turn the errors a user can cure into one line that says how."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno not in _CAUSES:
            raise
        message = (
            f"cannot write {place}: {_CAUSES[error.errno]}. What is finished is kept: run again afterwards."
        )
        raise StorageError(error.errno, message) from error
