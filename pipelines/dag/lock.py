"""One writer per artifact folder, among all processes that share an artifact store.

On a file system the kernel holds the lock and drops it with the process (flock); for object stores see
`store_lock`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipelines.dag.storage import LocalFolder, open_folder
from pipelines.dag.writing import StorageError, file_errors
from reptok.terminal import visible

POLL_SECONDS = 0.2
OWNER_BYTES = 200


@contextmanager
def locked(root: str, name: str) -> Iterator[Callable[[], None] | None]:
    """Hold the lock `name` of an artifact store; waits, and says so, while another process holds it.

    Gives, on a store where writes can be fenced, what raises `Superseded` if the lock was lost.
    """
    folder = open_folder(root)
    if isinstance(folder, LocalFolder):
        with _flocked(folder, name):
            yield None
        return
    from pipelines.dag.store_lock import owned

    with owned(folder, name, lambda owner: _announce(name, owner)) as check:
        yield check


@contextmanager
def _flocked(folder: LocalFolder, name: str) -> Iterator[None]:
    with os.fdopen(_open_lock(folder, name), "r+", errors="replace") as file:
        waited = False
        while not _try_flock(file):
            if not waited:
                _announce(name, file.read(OWNER_BYTES).strip() or "another process")
            waited = True
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.seek(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def _open_lock(folder: LocalFolder, name: str) -> int:
    """A descriptor of the lock file; written into, so a link, which leads to another file, is refused."""
    locks = folder.path("_locks")
    place = locks / name
    _make_root(locks.parent)
    try:
        with file_errors(str(place)):
            locks.mkdir(parents=True, exist_ok=True)
            here = os.open(locks, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(name, flags, 0o666, dir_fd=here)
            finally:
                os.close(here)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENXIO):
            raise
        raise _not_ours(place, error.errno) from error
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(descriptor)
        raise _not_ours(place, errno.EINVAL)
    return descriptor


def _make_root(root: Path) -> None:
    try:
        with file_errors(str(root)):
            root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise
        raise StorageError(
            error.errno,
            f"{root} is no folder, nor can it become one: it, or a place above it, is a file, a link to "
            "nothing or not for folders; choose another root=",
        ) from error


def _not_ours(place: Path, number: int) -> StorageError:
    return StorageError(
        number,
        f"{place} is no lock file: it, or its folder, is a link or no plain file; remove it, and run again",
    )


def _try_flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _announce(name: str, owner: str) -> None:
    print(visible(f"  {name}: waiting for {owner}, which is making it"), flush=True)
