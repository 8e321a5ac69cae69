"""Where copies of remote files lie on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return `REPTOK_CACHE`, `~/.cache/reptok` by default; what lies below may be deleted."""
    return Path(os.environ.get("REPTOK_CACHE") or Path.home() / ".cache" / "reptok")
