"""Where copies of remote files lie on this machine, and taking turns at them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """Return `REPTOK_CACHE`, `~/.cache/reptok` by default; what lies below may be deleted."""
    return Path(os.environ.get("REPTOK_CACHE") or Path.home() / ".cache" / "reptok")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other threads and processes of this machine out; the file stays, empty."""
    import fcntl

    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
