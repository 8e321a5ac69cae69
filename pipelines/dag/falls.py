"""Which machines workers fall on, and where new workers go therefore.

An actor that cannot set itself up dies, and one in which `STREAK` shards in a row failed begins anew in
another process. After `FALLS` of either kind a machine is avoided, as long as there is another.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterator, MutableMapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pipelines.dag.shards import WorkerResources

STREAK = FALLS = 3
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Falls:
    """Lies where all processes see it, since who falls can tell nobody else for sure.

    Attributes:
        notes: of one invocation.
    """

    notes: MutableMapping[str, str]

    def add(self, node: str, kind: str, cause: str) -> None:
        """Record one: `kind` is "setup" or "streak"."""
        self.notes[f"{node}-{kind}-{uuid.uuid4().hex[:12]}"] = cause

    def clear(self, node: str) -> None:
        """Forget those of a machine, where work went well again."""
        for name in list(self.notes):
            if name.startswith(f"{node}-"):
                self.notes.pop(name, None)

    def fallen(self, kind: str = "") -> set[str]:
        """The machines on which workers fell too often, in one way or in both."""
        names = (name.rsplit("-", 2) for name in self.notes)
        counts = Counter(node for node, found, _ in names if kind in ("", found))
        return {node for node, count in counts.items() if count >= FALLS}

    def cause(self) -> str:
        """Why a worker could not set itself up, "" if all could."""
        return next((self.notes[name] for name in self.notes if "-setup-" in name), "")


@dataclass(frozen=True)
class Pool:
    """The workers of one step.

    Attributes:
        falls: where they fell.
        failed_on: machines on which some of their shards failed, to be avoided where there are others.
        need: what a worker occupies.
    """

    falls: Falls
    failed_on: Set[str]
    need: WorkerResources

    def avoided(self, able: Set[str]) -> Set[str]:
        """Machines for new workers to avoid, among those that are `able`; never all of them."""
        fallen = self.falls.fallen()
        bad = fallen | self.failed_on
        avoided = bad if able - bad else fallen
        return avoided if able - avoided else frozenset()


@contextmanager
def avoiding(options: Any, pools: Sequence[Pool]) -> Iterator[None]:
    """Keep new workers off the machines on which too many fell; Ray Data reads the options as each starts.

    They are the same for all pools: a machine that one avoids is lost to all, unless another has no other.
    """
    ended = threading.Event()

    def avoid() -> None:
        able = [alive(pool.need).keys() for pool in pools]
        avoided: Set[str] = frozenset()
        for pool, machines in zip(pools, able, strict=True):
            more = avoided | pool.avoided(machines)
            if all(others - more for others in able):
                avoided = more
        options.label_selector = None
        if avoided:
            options.label_selector = {"ray.io/node-id": f"!in({','.join(sorted(avoided))})"}

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            with suppress(Exception):  # the cluster is away for a moment
                avoid()

    avoid()
    thread = threading.Thread(target=watch, name="falls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def alive(need: WorkerResources) -> dict[str, tuple[float, float]]:
    """CPUs and GPUs of the machines that are there and have what a worker occupies."""
    import ray

    found = {}
    for node in ray.nodes():
        cpus, gpus = node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
        if node["Alive"] and cpus >= need.cpus and gpus >= need.gpus:
            found[node["NodeID"]] = (cpus, gpus)
    return found
