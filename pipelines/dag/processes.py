"""The processes that this one has started: where they look for modules, and their end."""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

import psutil

RUN_AT_START = ("sitecustomize", "usercustomize")
GRACE_SECONDS = 5.0


def import_path() -> str:
    """The PYTHONPATH of a child: it finds modules where this process does, and in the working folder last.

    A file there that is called like a module (`pickle.py`) would otherwise run in its place. One that Python
    runs unasked when it starts (`sitecustomize.py`) keeps the folder out, unless PYTHONPATH has named it.
    """
    here = os.path.realpath(os.curdir)
    entries = [os.path.abspath(entry) for entry in sys.path if os.path.exists(entry or os.curdir)]
    given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    named = set(map(os.path.realpath, given))
    if here not in named and any(PathFinder.find_spec(name, [here]) for name in RUN_AT_START):
        entries = [entry for entry in entries if os.path.realpath(entry) != here]
    return os.pathsep.join(sorted(entries, key=lambda entry: os.path.realpath(entry) == here))


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
