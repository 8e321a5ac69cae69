"""A job over shards: its plan, its done records, and what becomes of shards that fail.

The work is done by actors of Ray Data (`ray_shards`), to which the row is the shard's description. A single
shard that is left to do gains nothing from a Ray that must be started first; it gets a process.

Pixels never travel between tasks; an actor gets a description, reads its input and writes its output itself.
The plan is written before the first shard and a done record after each one, so that a killed job goes on
where it was.
"""

from __future__ import annotations

import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Self

from annotated_types import Ge, Interval

from pipelines.dag import cluster, own_process
from pipelines.dag.failures import LOST, described, report
from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.own_process import ProcessDied
from pipelines.dag.redaction import redacted
from pipelines.dag.workspace import SCRATCH, Workspace

PLAN = f"{SCRATCH}/shards/plan.json"
DONE = f"{SCRATCH}/shards/done"
QUARANTINE = "quarantined.json"
"""Names the shards that an artifact lacks, with their rows and why; absent if it lacks none."""

READERS = 16
ATTEMPTS = 3
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Shard:
    """The unit of work and of resume.

    Attributes:
        index: position, unique within the job.
        name: what a message calls it ("urls-00003").
        rows: rows that it reads, or what else its job counts.
        payload: what the job needs to find its input; JSON values, and nothing that may differ between two
            runs of the same artifact (ports, worker counts): the plan of a resumed job must be the plan it
            began with.
    """

    index: int
    name: str
    rows: int
    payload: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class WorkerResources:
    """Who works on the shards.

    Attributes:
        workers: how many actors.
        cpus: what each occupies.
        gpus: likewise.
        max_failed: share of the shards that may fail without the stage: the artifact is published without
            them, and names them (see `QUARANTINE`).
    """

    workers: Annotated[int, Ge(1)] = 2
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

    def setup(self) -> None:  # noqa: B027 (most jobs need none)
        """Load weights, open clients: once per actor."""

    def together(self) -> AbstractContextManager[Self]:
        """Surround the work of several workers on Ray; gives the job that they get.

        The place for what they share.
        """
        return nullcontext(self)

    def absent(self, shard: Shard, out: Workspace) -> None:  # noqa: B027 (readers may know by QUARANTINE)
        """Write what stands for a shard that is given up, for readers who expect a file for each."""

    @abstractmethod
    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Do one shard: write its files with `out.create(...)` and return additive stats.

        The stats hold `rows_in`, `rows_out` and a `dropped_<reason>` for every reason; anything else additive
        may stand beside them. A row that fails is counted with its reason; an exception fails the shard.
        """


class ShardError(RuntimeError):
    """Some shards failed; the others are done and kept."""


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
    resources = resources or WorkerResources()
    write_plan(shards, out)
    done = read_done(shards, out)
    missing = [shard for shard in shards if shard.index not in done]
    total, rows = (
        sum(shard.rows for shard in shards),
        sum(shard.rows for shard in shards if shard.index in done),
    )
    if done and missing:
        print(f"  {len(done)} of {len(shards)} shards are done already", flush=True)
    failures: dict[int, str] = {}
    if missing:
        out.log.progress(rows, total)
        outcomes = _here(missing, job, out) if here else _stream(missing, job, out, resources)
        for index, record, failure in outcomes:
            if failure:
                failures[index] = failure
            else:
                done[index] = record
                rows += record["rows"]
                out.log.rows(record["stats"], sum(f["size"] for f in record["files"].values()), job.reasons)
                if watch:
                    watch(record["stats"])
                out.log.progress(rows, total)
    lost = [(shard, failures.get(shard.index, LOST)) for shard in shards if shard.index not in done]
    if len(lost) > resources.max_failed * len(shards):
        raise ShardError(report([(shard.name, cause) for shard, cause in lost], len(shards)))
    stats: dict[str, float] = {}
    for index in sorted(done):
        out.digests.update(done[index]["files"])
        for key, value in done[index]["stats"].items():
            stats[key] = stats.get(key, 0.0) + value
    return _quarantined(lost, stats, job, out)


def _quarantined(
    lost: Sequence[tuple[Shard, str]], stats: dict[str, float], job: ShardJob, out: Workspace
) -> dict[str, float]:
    """Name the shards that are given up, and count their rows as dropped."""
    if not lost:
        out.folder.remove(QUARANTINE)  # of an attempt before
        return stats
    print(f"  given up: {report([(s.name, cause) for s, cause in lost], len(lost))}", flush=True)
    for shard, _ in lost:
        job.absent(shard, out)
    named = [{"shard": s.name, "rows": s.rows, "cause": redacted(cause)} for s, cause in lost]
    out.write_json(QUARANTINE, named)
    rows = float(sum(shard.rows for shard, _ in lost))
    return {
        **stats,
        "rows_in": stats.get("rows_in", 0.0) + rows,
        "dropped_quarantined": rows,
        "shards_quarantined": float(len(lost)),
    }


def write_plan(shards: Sequence[Shard], out: Workspace) -> None:
    """Record the plan; refuse another plan than the recorded one."""
    if len({shard.index for shard in shards}) != len(shards):
        raise ValueError("two shards have the same index")
    plan = canonical_json([asdict(shard) for shard in shards])
    if not out.folder.exists(PLAN):
        out.folder.write_bytes(PLAN, plan)
    elif out.folder.read_bytes(PLAN) != plan:
        raise ValueError(
            f"{out.url} was begun with another plan of shards, although its fingerprint is the same: what "
            "changes the plan must be a significant config field. Remove that folder to begin anew."
        )


def read_done(shards: Sequence[Shard], out: Workspace) -> dict[int, dict[str, Any]]:
    """Done records by shard index; those whose files are not all there at their size do not count."""
    sizes = out.folder.sizes()
    recorded = [shard.index for shard in shards if record_name(shard.index) in sizes]
    done = {}
    with ThreadPoolExecutor(READERS) as readers:  # on an object store each record is a round trip
        contents = readers.map(lambda index: out.folder.read_bytes(record_name(index)), recorded)
        for index, content in zip(recorded, contents, strict=True):
            record = json.loads(content)
            if all(sizes.get(file) == entry["size"] for file, entry in record["files"].items()):
                done[index] = record
    return done


def checked_stats(shard: Shard, stats: Mapping[str, float]) -> dict[str, float]:
    """The stats of a shard, proven to account for every row.

    Raises:
        ValueError: a row is missing or doubled.
    """
    counted = {key: float(value) for key, value in stats.items()}
    absent = {"rows_in", "rows_out"} - counted.keys()
    if absent:
        raise ValueError(f"the job returned no {' and no '.join(sorted(absent))}")
    if counted["rows_in"] != shard.rows:
        raise ValueError(f"the job read {counted['rows_in']:.0f} rows where the plan says {shard.rows}")
    dropped = sum(value for key, value in counted.items() if key.startswith("dropped_"))
    if counted["rows_in"] != counted["rows_out"] + dropped:
        raise ValueError(
            f"{counted['rows_in']:.0f} rows in are not {counted['rows_out']:.0f} rows out and "
            f"{dropped:.0f} dropped"
        )
    return counted


Outcome = tuple[int, dict[str, Any], str]
"""Index, done record, failure."""


def _stream(
    shards: Sequence[Shard], job: ShardJob, out: Workspace, resources: WorkerResources
) -> Iterator[Outcome]:
    """Run the shards and yield their outcomes as they come."""
    if len(shards) == 1 and not cluster.at_hand():
        yield _alone(shards[0], job, out, resources)
    else:
        from pipelines.dag.ray_shards import in_ray

        yield from in_ray(shards, job, out, resources)


def _here(shards: Sequence[Shard], job: ShardJob, out: Workspace) -> Iterator[Outcome]:
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
        actor = ShardActor(job, out, uuid.uuid4().hex[:8])
    except Exception as error:
        return shard.index, {}, described(error)
    row = actor({"shard": json.dumps(asdict(shard))})
    return row["index"], json.loads(row["record"]), row["failure"]


def record_name(index: int) -> str:
    """Name of a shard's done record."""
    return f"{DONE}/{index:06d}.json"
