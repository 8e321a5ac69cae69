"""The git commit that made an artifact; recorded, never hashed."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


@cache
def git_commit() -> str:
    """This checkout's commit, with `-dirty` for local changes; without git `GIT_COMMIT` or "unknown"."""
    folder = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    return found or os.environ.get("GIT_COMMIT") or "unknown"
