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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from pipelines.dag.storage import LocalFolder, open_folder
from pipelines.dag.writing import StorageError, file_errors
from reptok.terminal import visible

LOCKS = "_locks"
POLL_SECONDS = 0.2
OWNER_BYTES = 200


class Held(RuntimeError):
    """Somebody holds a lock that is not waited for."""


@contextmanager
def locked(
    root: str, name: str, *, doing: str = "which is making it", wait: bool = True, lasting: bool = True
) -> Iterator[Callable[[], None] | None]:
    """Hold the lock `name` of an artifact store; waits, and says so, while another process holds it.

    Gives, on a store where writes can be fenced, what raises `Superseded` if the lock was lost.

    Args:
        root: URL of the store.
        name: of the lock.
        doing: what another holder does, for whom this waits.
        wait: whether to.
        lasting: whether others will ask for it; what is left of one that nobody does goes when it is free.

    Raises:
        Held: somebody holds it, and this does not wait.
    """
    folder = open_folder(root)

    def busy(owner: str) -> None:
        if not wait:
            raise Held(f"{name} is held by {owner}")
        print(visible(f"  {name}: waiting for {owner}, {doing}"), flush=True)

    if isinstance(folder, LocalFolder):
        with _flocked(folder, name, busy, lasting):
            yield None
        return
    from pipelines.dag.store_lock import owned

    with owned(folder, name, busy) as check:
        yield check


def holders(root: str, prefix: str, *, tidy: bool = False) -> list[str]:
    """Who holds locks whose names begin so, and since when.

    Args:
        root: URL of the store.
        prefix: of the names.
        tidy: remove what the dead left of them; for who keeps others from taking such locks meanwhile.
    """
    folder = open_folder(root)
    if not isinstance(folder, LocalFolder):
        from pipelines.dag import store_lock

        return store_lock.holders(folder, prefix, tidy)
    found = []
    for path in sorted(folder.path(LOCKS).glob(f"{prefix}*")):
        if path.is_symlink():
            continue
        with suppress(FileNotFoundError), open(path, errors="replace", opener=_plainly) as file:
            if not _try_flock(file, fcntl.LOCK_SH):
                found.append(visible(_owner(file)))
            elif tidy:
                path.unlink(missing_ok=True)
    return found


def _plainly(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@contextmanager
def _flocked(folder: LocalFolder, name: str, busy: Callable[[str], None], lasting: bool) -> Iterator[None]:
    with os.fdopen(_open_lock(folder, name), "r+", errors="replace") as file:
        waited = False
        while not _try_flock(file):
            if not waited:
                busy(_owner(file))
            waited = True
            time.sleep(POLL_SECONDS)
        file.truncate(0)
        file.seek(0)
        file.write(described(os.getpid(), socket.gethostname(), time.time()))
        file.flush()
        try:
            yield
        finally:
            if not lasting:
                folder.path(f"{LOCKS}/{name}").unlink(missing_ok=True)


def described(process: int, host: str, since: float) -> str:
    """Who holds a lock, in words; `since` is Unix time."""
    return f"process {process} on {host} since {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime(since))}"


def _owner(file: IO[str]) -> str:
    return file.read(OWNER_BYTES).strip() or "another process"


def _open_lock(folder: LocalFolder, name: str) -> int:
    """A descriptor of the lock file; written into, so a link, which leads to another file, is refused."""
    locks = folder.path(LOCKS)
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


def _try_flock(file: IO[str], how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
