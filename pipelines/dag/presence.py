"""Who works on a store: any number of workflows beside each other, or one who deletes, alone.

A workflow reads what it has skipped, which nothing refers to yet: nobody may delete beside it. So each holds
a lock of its own while it runs, and who deletes holds the gate through which workflows come: he looks once
whether somebody is there, and whoever comes later waits for him before he plans.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipelines.dag.lock import holders, locked

GATE, WORKFLOW = "gate", "workflow-"
AT_THE_GATE = "which deletes what nothing needs, or begins"


class Occupied(ValueError):
    """Workflows are running on the store; the message says whose and what to do."""


@contextmanager
def working(root: str) -> Iterator[None]:
    """Run a workflow on a store; waits, and says so, while somebody deletes there."""
    with ExitStack() as own:
        with locked(root, GATE, doing=AT_THE_GATE):
            holders(root, WORKFLOW, tidy=True)
            own.enter_context(locked(root, f"{WORKFLOW}{uuid.uuid4().hex}", lasting=False))
        yield


@contextmanager
def alone(root: str) -> Iterator[Callable[[], None]]:
    """Delete from a store where no workflow runs; none begins before the block ends.

    Gives what raises `Superseded` if somebody else has taken the store over meanwhile, which can be where
    this process was away for longer than a lock of an object store lasts: to be called before each deletion.

    Raises:
        Occupied: workflows are running there.
    """
    with locked(root, GATE, doing=AT_THE_GATE) as check:
        if found := holders(root, WORKFLOW, tidy=True):
            raise Occupied(
                f"{root}: {running(found)}, and what it is about to read would be deleted. Wait until it has "
                "ended, or end it (Ctrl-C keeps what is finished), and run this again"
            )
        yield check or (lambda: None)


def workflows(root: str) -> list[str]:
    """Who runs workflows on a store, and since when; nothing is written there."""
    return holders(root, WORKFLOW)


def running(found: list[str]) -> str:
    """Say who runs workflows."""
    return f"a workflow is running there ({'; '.join(found)})"
