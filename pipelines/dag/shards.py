"""A job over shards: its plan, its done records, and what becomes of shards that fail.

The work is done by actors of Ray Data (`ray_shards`), to which the row is the shard's description. A single
shard that is left to do gains nothing from a Ray that must be started first; it gets a process.

Pixels never travel between tasks; an actor gets a description, reads its input and writes its output itself.
The plan is written before the first shard and a done record after each one, so that a killed job goes on
where it was.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from annotated_types import Ge, Interval

from pipelines.dag import cluster, own_process
from pipelines.dag.asking import Asking
from pipelines.dag.failures import described
from pipelines.dag.own_process import ProcessDied
from pipelines.dag.shard_records import Record
from pipelines.dag.tally import Tally
from pipelines.dag.wanted import Wanted
from pipelines.dag.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.dag.artifact import Artifact
    from pipelines.dag.earlier import Made

ATTEMPTS = 3
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Shard:
    """The unit of work and of resume.

    Attributes:
        index: position, unique within the job.
        name: what a message calls it ("urls-00003").
        rows: rows that it reads, or what else its job counts; `UNCOUNTED` where the job is to count them
            (`ShardJob.rows_of`) before it begins.
        payload: what the job needs to find its input; JSON values, and nothing that may differ between two
            runs of the same artifact (ports, worker counts): the plan of a resumed job must be the plan it
            began with.
        follows: the shard of its input that it is made from; that of its own index if None.
    """

    index: int
    name: str
    rows: int
    payload: dict[str, Any]
    follows: int | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """Who works on the shards.

    Attributes:
        workers: how many actors at most; 0 for as many as the cluster has room for.
        cpus: what each occupies.
        gpus: likewise.
        max_failed: share of the shards that may fail without the stage: the artifact is published without
            them, and names them (see `QUARANTINE`).
    """

    workers: Annotated[int, Ge(0)] = 2
    cpus: Annotated[float, Ge(0)] = 1.0
    gpus: Annotated[float, Ge(0)] = 0.0
    max_failed: Annotated[float, Interval(ge=0, lt=1)] = 0.0


class ShardJob(ABC):
    """A frozen dataclass of settings, sent to every actor.

    Whatever `setup` loads is set with `object.__setattr__` or kept in a field excluded from the settings.

    Attributes:
        reasons: words for which metrics count the dropped rows apart (see `Board.rows`).
    """

    reasons: ClassVar[frozenset[str]] = frozenset()

    @property
    def asking(self) -> Asking | None:
        """What it has answered by others before a shard is done (see `asking`)."""
        return None

    def setup(self) -> None:  # noqa: B027 (most jobs need none)
        """Load weights, open clients: once per actor."""

    def together(self) -> AbstractContextManager[Self]:
        """Surround the work of several workers on Ray; gives the job that they get.

        The place for what they share.
        """
        return nullcontext(self)

    def absent(self, shard: Shard, out: Workspace) -> None:  # noqa: B027 (readers may know by QUARANTINE)
        """Write what stands for a shard that is given up, for readers who expect a file for each."""

    def rows_of(self, shard: Shard) -> int:
        """Rows of a shard that the plan leaves uncounted, as its input says; asked before `setup`, too."""
        raise NotImplementedError(f"{type(self).__name__} has uncounted shards, and no rows_of() to count")

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """Names of the published files that it writes for a shard.

        Later stages plan by them, and wait until the artifact is published where there are none; and where
        shards may be left out (see `wanted`), so are these files.
        """
        return ()

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """All that a shard is made of beside the stage's settings and its other inputs: what may differ.

        Where an earlier artifact has a shard that was made of the same, that one's files are taken. Without
        any, every shard is made.
        """
        return ()

    def still_good(self, shard: Shard, earlier: Artifact, made: Mapping[str, Any]) -> bool:
        """Whether an earlier shard that was made of the same may be taken; `made` names its files."""
        return True

    @abstractmethod
    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Do one shard: write its files with `out.create(...)` and return additive stats.

        The stats hold `rows_in`, `rows_out` and a `dropped_<reason>` for every reason; anything else additive
        may stand beside them. A row that fails is counted with its reason; an exception fails the shard.
        """


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """What a stage does, shard by shard.

    Attributes:
        shards: all of its artifact, in order.
        job: what to do with each.
        workers: who does it.
        watch: is told the stats of each shard as it is done.
        facts: what is known of the artifact before it is made, for later stages to ask (`Coming.facts`).
        wanted: how many rows are enough; None for those of all shards.
    """

    shards: Sequence[Shard]
    job: ShardJob
    workers: WorkerResources = field(default_factory=WorkerResources)
    watch: Callable[[Mapping[str, float]], None] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    wanted: Wanted | None = None


def map_shards(
    shards: Sequence[Shard],
    job: ShardJob,
    out: Workspace,
    resources: WorkerResources | None = None,
    watch: Callable[[Mapping[str, float]], None] | None = None,
    *,
    here: bool = False,
) -> dict[str, float]:
    """Run a job over all shards that are not done yet and return the summed stats of all of them.

    The files and stats do not depend on the number of workers or on interruptions. Ray is started only if
    more than one shard is left to do.

    Args:
        shards: all shards of the artifact, in order.
        job: what to do with each.
        out: the stage's workspace.
        resources: actors and what each occupies; 2 actors with one CPU each by default.
        watch: is told the stats of each shard as it is done.
        here: work in this process, once, and raise what the job raises: for what takes a moment.

    Raises:
        ValueError: the plan differs from the one this workspace was begun with.
        ShardError: more shards failed than may; names each with its cause.
    """
    workers = resources or WorkerResources()
    return tally_of(ShardWork(shards=shards, job=job, workers=workers, watch=watch), out, here=here).stats()


def tally_of(work: ShardWork, out: Workspace, *, here: bool = False) -> Tally:
    """Do what is left of the work, as `map_shards` does, and return the tally of it."""
    tally = Tally(work, out)
    if missing := tally.missing:
        job, ends = work.job, [out.url] if work.wanted else []
        stream = _here(missing, job, out) if here else _stream(missing, job, out, work.workers, *ends)
        with closing(stream):
            for outcome in stream:
                tally.take(*outcome)
                if tally.end is not None and tally.complete:
                    break  # what else the workers have begun is of no use
    return tally


Outcome = tuple[int, Record, str]
"""Index, done record, failure."""


def _stream(
    shards: Sequence[Shard], job: ShardJob, out: Workspace, resources: WorkerResources, *ends: str
) -> Generator[Outcome]:
    """Run the shards and yield their outcomes as they come; those beyond the `ends` of jobs may be left."""
    if len(shards) == 1 and not cluster.at_hand() and not job.asking:
        yield _alone(shards[0], job, out, resources)
    else:
        from pipelines.dag.ray_shards import in_ray

        yield from in_ray(shards, job, out, resources, ends)


def _here(shards: Sequence[Shard], job: ShardJob, out: Workspace) -> Generator[Outcome]:
    """Run the shards in this process."""
    from pipelines.dag.shard_actor import do_shard

    job.setup()
    for shard in shards:
        yield shard.index, do_shard(shard, job, out), ""


def _alone(shard: Shard, job: ShardJob, out: Workspace, resources: WorkerResources) -> Outcome:
    """Run a shard in a process of its own."""
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            outcome: Outcome = own_process.call(_do_one, shard, job, out, threads=max(1, int(resources.cpus)))
            return outcome
        except ProcessDied as error:
            reason = str(error)
    return shard.index, {}, f"its worker process died {ATTEMPTS} times ({reason})"


def _do_one(shard: Shard, job: ShardJob, out: Workspace) -> Outcome:
    from pipelines.dag.shard_actor import ShardActor

    try:
        actor = ShardActor(job, out)
    except Exception as error:
        return shard.index, {}, described(error)
    row = actor({"shard": json.dumps(asdict(shard))})
    return row["index"], json.loads(row["record"]), row["failure"]
