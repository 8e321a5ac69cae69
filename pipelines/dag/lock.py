"""One writer per artifact folder, among all processes that share an artifact store.

On a file system the kernel holds the lock and drops it with the process (flock). On an object store an owner
record is kept fresh while the work goes on; a stale one is taken over. Should that ever let two writers in,
both write the same bytes, and each file in one piece.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipelines.dag.storage import Folder, LocalFolder, open_folder
from pipelines.dag.writing import StorageError, file_errors
from reptok.terminal import visible

POLL_SECONDS = 0.2
OWNER_BYTES = 200
_RECORD: dict[str, Callable[[Any], Any]] = {"token": str, "pid": int, "host": str, "time": float}
HEARTBEAT_SECONDS, STALE_SECONDS = 20.0, 120.0


@contextmanager
def locked(root: str, name: str) -> Iterator[None]:
    """Hold the lock `name` of an artifact store; waits, and says so, while another process holds it."""
    folder = open_folder(root)
    if isinstance(folder, LocalFolder):
        with _flocked(folder, name):
            yield
    else:
        with _owned(folder, f"_locks/{name}.json"):
            yield


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


@contextmanager
def _owned(folder: Folder, name: str) -> Iterator[None]:
    token, waited = uuid.uuid4().hex, False
    while (owner := _owner(folder, name)) is None or owner["token"] != token:
        if owner is None or _is_stale(owner):
            _claim(folder, name, token)
        elif not waited:
            _announce(name, f"process {owner['pid']} on {owner['host']}")
            waited = True
        time.sleep(POLL_SECONDS)
    released = threading.Event()

    def keep_fresh() -> None:
        while not released.wait(HEARTBEAT_SECONDS):
            _claim(folder, name, token)

    heart = threading.Thread(target=keep_fresh, daemon=True)
    heart.start()
    try:
        yield
    finally:
        released.set()
        heart.join()
        folder.remove(name)


def _owner(folder: Folder, name: str) -> dict[str, Any] | None:
    """Who holds a lock; None if nobody does, or what stands there is no record of ours."""
    try:
        record = json.loads(folder.read_bytes(name))
        owner = {key: kind(record[key]) for key, kind in _RECORD.items()}
    except (FileNotFoundError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return owner if 0 < owner["pid"] < 1 << 31 and owner["time"] == owner["time"] else None


def _claim(folder: Folder, name: str, token: str) -> None:
    owner = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "time": time.time()}
    folder.write_bytes(name, json.dumps(owner).encode())


def _is_stale(owner: dict[str, Any]) -> bool:
    if time.time() - owner["time"] > STALE_SECONDS:
        return True
    return owner["host"] == socket.gethostname() and not _is_alive(owner["pid"])


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _announce(name: str, owner: str) -> None:
    print(visible(f"  {name}: waiting for {owner}, which is making it"), flush=True)
