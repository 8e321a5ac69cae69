"""The private folder of a local Ray: no other user of the machine reaches its sockets, logs or blocks.

Ray makes its session folders writable for everybody. So they lie inside of a folder that only this user may
enter, and that goes with the Ray that it is for; what a killed one left is removed by the next.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipelines.dag.writing import StorageError

PREFIX = "reptok-ray-"
CHILD = "r"
SOCKET_BYTES = 103
"""The shortest limit of a socket's path (macOS; Linux has 107)."""

SESSION_BYTES = len("/session_2026-11-24_19-21-59_123456_4194304/sockets/plasma_store")


class SessionFolder:
    """A folder of mode 0700, locked while it is used.

    Attributes:
        path: its child, where Ray may widen modes as it likes.
    """

    def __init__(self) -> None:
        """Make the folder in the first place that will do.

        Raises:
            StorageError: there is none.
        """
        places = list(_places())
        for place in places:
            _sweep(place)
        for place in places:
            with suppress(OSError):
                self._folder, self._lock = _make(place)
                self.path = self._folder / CHILD
                self.path.mkdir()
                return
        raise StorageError(
            errno.EACCES,
            "no folder for Ray's session: it needs one that this user may write, with a path of at most "
            f"{_longest_place()} bytes and not open to renaming by others; set TMPDIR to such a folder",
        )

    def remove(self) -> None:
        """Remove it with all below it, as far as that goes."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


def _longest_place() -> int:
    return SOCKET_BYTES - SESSION_BYTES - len(f"/{PREFIX}12345678/{CHILD}")


def _places() -> Iterator[Path]:
    """Folders for temporary files where sockets have paths that are short enough."""
    seen = set()
    for name in (os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm"):
        place = os.path.realpath(name) if name else ""
        if not place or place in seen or len(os.fsencode(place)) > _longest_place():
            continue
        seen.add(place)
        with suppress(OSError):
            if not any(map(_is_renamable_in, (Path(place), *Path(place).parents))):
                yield Path(place)


def _is_renamable_in(folder: Path) -> bool:
    """Whether anybody may put another file in the place of one that lies there."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def _make(place: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(OSError):  # swept already, between these lines
            return folder, _locked(folder)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder's lock; the kernel drops it with this process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(place: Path) -> None:
    """Remove this user's folders whose process has ended."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid == os.getuid():
                lock = _locked(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)
