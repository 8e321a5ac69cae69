"""The processes that this one has started, and their end."""

from __future__ import annotations

import psutil

GRACE_SECONDS = 5.0


def children() -> list[psutil.Process]:
    """Every living descendant of this process."""
    return list(psutil.Process().children(recursive=True))


def end(processes: list[psutil.Process]) -> None:
    """Ask processes to end, then end those that do not."""
    for process in processes:
        _signal(process, force=False)
    _, alive = psutil.wait_procs(processes, timeout=GRACE_SECONDS)
    for process in alive:
        _signal(process, force=True)


def _signal(process: psutil.Process, *, force: bool) -> None:
    try:
        if force:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        pass
