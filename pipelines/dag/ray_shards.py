"""The one adapter that knows Ray Data: shards go through a pool of actors, and those that fail go elsewhere.

Ray gives the next shard to the actor that is least busy, and so to the one that fails fastest. Therefore an
actor that cannot set itself up dies, and one in which `STREAK` shards in a row failed begins anew in another
process. After `FALLS` of either kind a machine is avoided, as long as there is another. What failed once is
tried once more by other processes when the rest is done.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from pipelines.dag import cluster
from pipelines.dag.failures import LOST, described
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.shards import Outcome, Shard, ShardJob, WorkerResources
from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import SCRATCH, Workspace

STREAK = FALLS = 3
ROUNDS = 3
POLL_SECONDS = 1.0


class SetupError(RuntimeError):
    """No worker could set itself up; the message is the cause."""


@dataclass(frozen=True)
class Falls:
    """Which machines workers fell on; lies on the storage, since who falls can tell nobody else for sure.

    Attributes:
        url: a folder of one invocation.
    """

    url: str

    def add(self, node: str, kind: str, cause: str) -> None:
        """Record one: `kind` is "setup" or "streak"."""
        open_folder(self.url).write_bytes(f"{node}-{kind}-{uuid.uuid4().hex[:12]}", cause.encode())

    def clear(self, node: str) -> None:
        """Forget those of a machine, where work went well again."""
        folder = open_folder(self.url)
        for name in folder.sizes():
            if name.startswith(f"{node}-"):
                folder.remove(name)

    def count(self, kind: str = "") -> Counter[str]:
        """Number by machine, of one kind or of both."""
        names = (name.rsplit("-", 2) for name in open_folder(self.url).sizes())
        return Counter(node for node, found, _ in names if kind in ("", found))

    def cause(self) -> str:
        """Why a worker could not set itself up, "" if all could."""
        folder = open_folder(self.url)
        names = [name for name in folder.sizes() if "-setup-" in name]
        return folder.read_bytes(names[0]).decode() if names else ""


class Worker:
    """A shard actor in a process of Ray's."""

    def __init__(self, job: ShardJob, out: Workspace, invocation: str, falls: Falls, need: WorkerResources):
        import ray

        context = ray.get_runtime_context()
        self._node, self._falls = context.get_node_id(), falls
        self._again = bool(context.was_current_actor_reconstructed)
        self._streak, self._unready = 0, ""
        if self._again and self._avoided(need):
            raise RuntimeError(f"workers fell on this machine {FALLS} times, and there are others")
        try:
            self._actor = ShardActor(
                job, out, invocation, self._node, lambda: _alive(WorkerResources(cpus=0))
            )
        except Exception as error:
            self._unready = described(error)
            falls.add(self._node, "setup", self._unready)
            if not self._again:  # Ray Data replaces an actor only if it dies before it ever worked
                raise SetupError(self._unready) from error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """See `ShardActor`; "handed_back" says that the shard was not begun."""
        if self._unready:
            index = json.loads(row["shard"])["index"]
            return {"index": index, "record": "{}", "failure": "", "final": False, "handed_back": True}
        if self._streak >= STREAK:
            self._falls.add(self._node, "streak", "")
            os._exit(1)  # Ray starts it again, and what waits for it goes there
        outcome = self._actor(row)
        failed = bool(outcome["failure"])
        self._streak = self._streak + 1 if failed else 0
        if self._again and not failed:
            self._falls.clear(self._node)
            self._again = False
        return {**outcome, "handed_back": False}

    def _avoided(self, need: WorkerResources) -> bool:
        """Whether this machine is one to avoid; never are all of them."""
        fallen = _fallen(self._falls)
        return self._node in fallen and bool(_alive(need) - fallen)


def in_ray(
    shards: Sequence[Shard], job: ShardJob, out: Workspace, resources: WorkerResources
) -> Iterator[Outcome]:
    """Run shards in Ray Data actors, and yield their outcomes as they come."""
    cluster.ensure()
    invocation = uuid.uuid4().hex[:8]
    falls = Falls(out.folder.url_of(f"{SCRATCH}/shards/falls/{invocation}"))
    left = {shard.index: shard for shard in shards}
    causes: dict[int, str] = {}
    with job.together() as shared:
        for _ in range(ROUNDS):
            try:
                for row in _round(list(left.values()), shared, out, invocation, falls, resources):
                    index, failure = row["index"], row["failure"]
                    if row["handed_back"]:
                        continue
                    if failure and index not in causes and not row["final"]:
                        causes[index] = failure  # another process may do it
                        continue
                    del left[index]
                    yield index, json.loads(row["record"]), failure
            except Exception:  # too many workers in a row fell before they could begin
                if not falls.cause():
                    raise
                if _alive(resources) <= _fallen(falls, "setup"):
                    break
            if not left:
                return
    for index in left:
        yield index, {}, causes.get(index, falls.cause() or LOST)


def _round(
    shards: Sequence[Shard],
    job: ShardJob,
    out: Workspace,
    invocation: str,
    falls: Falls,
    resources: WorkerResources,
) -> Iterator[Mapping[str, Any]]:
    """Give each shard to a worker once."""
    import ray.data

    workers = min(resources.workers, len(shards))
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # what a dying actor held comes again in the next round
    context.max_consecutive_actor_init_deaths = FALLS * len(_alive(resources)) + workers - 1
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we say what failed
    rows = [{"shard": json.dumps(asdict(shard))} for shard in shards]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        cast(Any, Worker),
        fn_constructor_args=(job, out, invocation, falls, resources),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=workers, initial_size=workers, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
    )
    with _avoiding(results.context.execution_options, falls, resources):
        yield from results.iter_rows()


@contextmanager
def _avoiding(options: Any, falls: Falls, need: WorkerResources) -> Iterator[None]:
    """Keep new actors off the machines on which too many fell; Ray Data reads the options as each starts."""
    ended = threading.Event()

    def avoid() -> None:
        fallen = _fallen(falls)
        options.label_selector = None
        if fallen and _alive(need) - fallen:
            options.label_selector = {"ray.io/node-id": f"!in({','.join(sorted(fallen))})"}

    def watch() -> None:
        while not ended.wait(POLL_SECONDS):
            with suppress(Exception):  # the storage, or the cluster, is away for a moment
                avoid()

    avoid()
    thread = threading.Thread(target=watch, name="falls", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _fallen(falls: Falls, kind: str = "") -> set[str]:
    """The machines on which workers fell too often."""
    return {node for node, count in falls.count(kind).items() if count >= FALLS}


def _alive(need: WorkerResources) -> set[str]:
    """The machines that are there and have what a worker occupies."""
    import ray

    return {
        node["NodeID"]
        for node in ray.nodes()
        if node["Alive"]
        and node["Resources"].get("CPU", 0) >= need.cpus
        and node["Resources"].get("GPU", 0) >= need.gpus
    }
