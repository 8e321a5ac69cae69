"""The one adapter that knows Ray Data: shards go through pools of actors, and those that fail go elsewhere.

A row is a *lane*: a shard of the first step, and the shards of later steps that follow it, each step with a
pool of its own. Where a step fails, the later ones leave their part of the lane alone. A stage by itself is
a pipeline of one step.

Ray gives the next lane to the actor that is least busy, and so to the one that fails fastest: see `falls`.
What failed once is tried once more by other processes when the rest is done.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from pipelines.dag import cluster
from pipelines.dag.coming import came
from pipelines.dag.failures import LOST, described
from pipelines.dag.falls import FALLS, STREAK, Falls, Pool, alive, avoiding
from pipelines.dag.notes import Notes
from pipelines.dag.pools import room
from pipelines.dag.ray_asking import asked
from pipelines.dag.shard_actor import Beginnings, ShardActor
from pipelines.dag.shards import Outcome, Shard, ShardJob, WorkerResources
from pipelines.dag.wanted import place_of, told_end
from pipelines.dag.workspace import Workspace

ROUNDS = 3
STALL_SECONDS = 3600.0
"""Without anything done anywhere for so long, a pipeline of several steps has lost the machines that it needs
to work on all of them, and ends."""

Lane = Sequence[Sequence[Shard]]
"""For each step, the shards that it does one after the other."""


class SetupError(RuntimeError):
    """No worker could set itself up; the message is the cause."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What the workers of a pool need.

    Attributes:
        job: what they do.
        out: where.
        need: how many they are, and what each occupies.
        invocation: counts what befalls them.
        failed_on: machines on which some of the shards failed before.
        ends: workspaces of jobs that end when a wanted number is reached, and this one with them.
    """

    job: ShardJob
    out: Workspace
    need: WorkerResources
    invocation: str
    failed_on: Set[str] = frozenset()
    ends: Sequence[str] = ()

    @staticmethod
    def of(job: ShardJob, out: Workspace, need: WorkerResources, ends: Sequence[str] = ()) -> Step:
        """A step whose workers have not begun."""
        return Step(job=job, out=out, need=need, invocation=uuid.uuid4().hex[:8], ends=ends)

    def beyond(self, place: int) -> bool:
        """Whether what lies at a place is of no use any more."""
        return any((end := told_end(url)) is not None and place >= end for url in self.ends)

    @property
    def falls(self) -> Falls:
        """Where its workers fell."""
        return Falls(Notes(f"falls/{self.invocation}"))

    @property
    def begun(self) -> Notes:
        """On which machines its shards were begun."""
        return Notes(f"begun/{self.invocation}")

    @property
    def announced(self) -> Notes:
        """Done records of shards whose lanes go on, by index, until the driver has taken them."""
        return Notes(f"done/{self.invocation}")

    def forget(self) -> None:
        """Remove its notes, when its workers have ended."""
        for notes in (self.falls.notes, self.begun, self.announced):
            notes.clear()


class Worker:
    """A shard actor in a process of Ray's.

    Args:
        step: whose.
        number: the step's place in the pipeline.
    """

    def __init__(self, step: Step, number: int) -> None:
        import ray

        context = ray.get_runtime_context()
        self._step = step
        self._node, self._number, self._falls = context.get_node_id(), number, step.falls
        self._again = bool(context.was_current_actor_reconstructed)
        self._announced = step.announced
        self._streak, self._unready = 0, ""
        if self._again and self._avoided(step.need):
            raise RuntimeError(f"workers fell on this machine {FALLS} times, and there are others")
        try:
            self._actor = ShardActor(
                step.job,
                step.out,
                Beginnings(step.begun, self._node, lambda: alive(WorkerResources(cpus=0))),
            )
        except Exception as error:
            self._unready = described(error)
            self._falls.add(self._node, "setup", self._unready)
            if not self._again:  # Ray Data replaces an actor only if it dies before it ever worked
                raise SetupError(self._unready) from error

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do this step's part of a lane, and append what became of it.

        An outcome is that of `ShardActor`, with the step's number, machine and workspace; "handed_back" says
        that the shard was not begun.
        """
        lane = json.loads(row["lane"])
        for outcome in lane["outcomes"]:
            if outcome["record"] != "{}":
                came(outcome["url"], outcome["index"], json.loads(outcome["record"]))
        if lane["open"] and lane["shards"][self._number] and self._streak >= STREAK and not self._unready:
            self._falls.add(self._node, "streak", "")
            os._exit(1)  # Ray starts it again, and what waits for it goes there
        due = lane["shards"][self._number] if lane["open"] else ()
        beyond = bool(due) and self._step.beyond(lane["place"])
        for shard in due:
            outcome = _handed_back(shard) if beyond else self._do(shard)
            told = {"step": self._number, "node": self._node, "url": self._step.out.url}
            lane["outcomes"].append({**outcome, **told})
            if any(lane["shards"][self._number + 1 :]) and outcome["record"] != "{}":
                self._announced[str(outcome["index"])] = outcome["record"]  # the lane is long on its way
            lane["open"] &= beyond or not (outcome["failure"] or outcome["handed_back"])
        return {"lane": json.dumps(lane)}

    def _do(self, shard: Mapping[str, Any]) -> dict[str, Any]:
        if self._unready:
            return _handed_back(shard)
        outcome = self._actor({"shard": json.dumps(shard)})
        failed = bool(outcome["failure"])
        self._streak = self._streak + 1 if failed else 0
        if self._again and not failed:
            self._falls.clear(self._node)
            self._again = False
        return {**outcome, "handed_back": False}

    def _avoided(self, need: WorkerResources) -> bool:
        """Whether this machine is one to avoid; never are all of them."""
        fallen = self._falls.fallen()
        return self._node in fallen and bool(alive(need).keys() - fallen)


def _handed_back(shard: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": shard["index"], "record": "{}", "failure": "", "final": False, "handed_back": True}


def in_ray(
    shards: Sequence[Shard],
    job: ShardJob,
    out: Workspace,
    resources: WorkerResources,
    ends: Sequence[str] = (),
) -> Generator[Outcome]:
    """Run the shards of one step, and yield their outcomes as they come."""
    cluster.ensure()
    step = Step.of(job, out, resources, ends)
    left = {shard.index: shard for shard in shards}
    causes: dict[int, str] = {}
    failed_on: set[str] = set()
    with ExitStack() as together:
        together.callback(step.forget)
        shared = together.enter_context(job.together())
        for _ in range(ROUNDS):
            now = replace(step, job=shared, failed_on=frozenset(failed_on))
            try:
                for outcome in _piped([now], [[[shard]] for shard in left.values()]):
                    index, failure = outcome["index"], outcome["failure"]
                    if outcome["handed_back"]:
                        continue
                    if failure and index not in causes and not outcome["final"]:
                        causes[index] = failure  # another process, elsewhere, may do it
                        failed_on |= {outcome["node"]} - {""}  # of what no machine is to blame for
                        continue
                    del left[index]
                    yield index, json.loads(outcome["record"]), failure
            except Exception:  # too many workers in a row fell before they could begin
                if not step.falls.cause():
                    raise
                if alive(resources).keys() <= step.falls.fallen("setup"):
                    break
            if not left:
                break
        for index in left:
            yield index, {}, causes.get(index, step.falls.cause() or LOST)


def through(steps: Sequence[Step], lanes: Sequence[Lane]) -> Generator[tuple[int, Outcome] | None]:
    """Send lanes through several steps, once; yield step and outcome of what was done or failed.

    None stands for what was not begun.
    """
    with ExitStack() as together:
        shared = [replace(step, job=together.enter_context(step.job.together())) for step in steps]
        for outcome in _piped(shared, lanes):
            record = json.loads(outcome["record"])
            done = outcome["step"], (outcome["index"], record, outcome["failure"])
            yield None if outcome["handed_back"] else done


def _piped(steps: Sequence[Step], lanes: Sequence[Lane]) -> Iterator[dict[str, Any]]:
    """Give each lane to a worker of each step in turn; yield all outcomes of a lane when it is through."""
    import ray.data

    busy = [sum(bool(lane[number]) for lane in lanes) for number in range(len(steps))]
    needs = [
        replace(step.need, workers=min(step.need.workers or most, most))
        for step, most in zip(steps, busy, strict=True)
    ]
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # what a dying actor held comes again in the next round
    context.max_consecutive_actor_init_deaths = max(
        FALLS * len(alive(need)) + need.workers - 1 for need in needs
    )
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # we say what failed
    pools = [Pool(step.falls, step.failed_on, need) for step, need in zip(steps, needs, strict=True)]
    dataset = ray.data.from_items([_row(lane) for lane in lanes], override_num_blocks=len(lanes))
    for number, (step, need) in enumerate(zip(steps, needs, strict=True)):
        if step.job.asking:
            dataset, need = asked(dataset, step, number, need)
        dataset = dataset.map(
            cast(Any, Worker),
            fn_constructor_args=(step, number),
            compute=ray.data.ActorPoolStrategy(
                min_size=1,
                max_size=need.workers,  # of as many as there is room for, more as machines join
                initial_size=need.workers if step.need.workers else min(need.workers, _room(need)),
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=need.cpus,
            num_gpus=need.gpus,
        )
    if len(steps) > 1:
        dataset.context.execution_no_progress_timeout_s = STALL_SECONDS
    with avoiding(dataset.context.execution_options, pools):
        for row in dataset.iter_rows():
            yield from json.loads(row["lane"])["outcomes"]


def _room(need: WorkerResources) -> int:
    return room(need, alive(need).values())


def _row(lane: Lane) -> dict[str, str]:
    shards = [[asdict(shard) for shard in part] for part in lane]
    place = next(place_of(shard) for part in lane for shard in part)
    return {"lane": json.dumps({"place": place, "shards": shards, "outcomes": [], "open": True})}
