"""What a worker process does with a shard: attempts, the done record, and a count of its own deaths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from pipelines.dag import shards as plans
from pipelines.dag.earlier import asked, reused
from pipelines.dag.failures import described
from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.shard_records import UNCOUNTED, Record, checked_stats, done_record, record_name
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.dag.s3 import S3Folder


class DiedTooOften(RuntimeError):
    """A shard took its worker process down with it, again and again."""


def do_shard(shard: Shard, job: ShardJob, out: Workspace, *, again: bool = False) -> Record:
    """Do a shard, or take it from an earlier artifact, and write its done record, which is returned.

    Args:
        shard: what to do.
        job: how.
        out: where.
        again: whether another attempt may have been at it, and may still be.

    Raises:
        Superseded: another attempt is at it.
    """
    fence = None
    if out.fenced:
        from pipelines.dag.fence import ShardFence

        fence = ShardFence(cast("S3Folder", out.folder), record_name(shard.index), again=again)
    made = job.made_of(shard)
    if made and out.earlier is None and (known := asked(out)):
        out.earlier = known.beside(made)  # the same for all shards of a worker
    earlier = out.earlier if made else None
    out = Workspace(out.url, out.fingerprint, fenced=out.fenced).behind(fence)
    out.earlier = earlier
    of = out.earlier.of(shard, made) if out.earlier else ""
    record = reused(shard, job, out, of, out.earlier) if out.earlier and of else None
    if record is None:
        if shard.rows == UNCOUNTED:
            shard = replace(shard, rows=job.rows_of(shard))
        stats = checked_stats(shard, job(shard, out))
        record = {
            "name": shard.name, "rows": shard.rows, "stats": stats, "files": out.digests,
            "summaries": out.summaries,
        }  # fmt: skip
    if out.earlier:
        record |= {"of": of, "rest": out.earlier.rest, "named": list(job.files_of(shard))}
    if fence:
        return fence.commit(canonical_json(record))
    out.folder.write_bytes(record_name(shard.index), canonical_json(record))
    return record


@dataclass(frozen=True)
class Beginnings:
    """On which machines each shard was begun: those whose process died there were not ended.

    Ray begins a lost shard again, without end and in another process: only others know.

    Attributes:
        notes: of one invocation; deaths in another one do not count.
        node: where this process runs.
        alive: names the machines that are there now. A process that ended with its machine was taken away,
            and the shard is not to blame.
    """

    notes: MutableMapping[str, str] = field(default_factory=dict)
    node: str = ""
    alive: Callable[[], Collection[str]] = lambda: ("",)

    def add(self, shard: Shard) -> bool:
        """Remember that this shard begins here; whether it was begun before.

        Raises:
            DiedTooOften: its process died each time, on machines that are still there.
        """
        nodes = json.loads(self.notes.get(str(shard.index), "[]"))
        if len(nodes) >= plans.ATTEMPTS:
            alive = self.alive()
            died = sum(node in alive for node in nodes)
            if died >= plans.ATTEMPTS:
                raise DiedTooOften(f"its worker process died {died} times (out of memory?)")
        self.notes[str(shard.index)] = json.dumps([*nodes, self.node])
        return bool(nodes)

    def end(self, shard: Shard) -> None:
        """Forget the shard's beginning: it failed, and nobody died."""
        self.notes.pop(str(shard.index), None)


class ShardActor:
    """Sets a job up and does one shard after another.

    Args:
        job: what to do.
        out: the stage's workspace.
        beginnings: of shards, where those of a process that died are begun again.
    """

    def __init__(self, job: ShardJob, out: Workspace, beginnings: Beginnings | None = None) -> None:
        self._job, self._out = job, out
        self._beginnings = beginnings or Beginnings()
        job.setup()

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the shard that a row describes, three times at most.

        Returns:
            Its "index"; "record", the done record as JSON; "failure", why there is none; and "final", whether
            no other process need try.
        """
        shard = Shard(**json.loads(row["shard"]))
        record: Record | None = None
        failure, final, begun, again = "", False, False, False
        for attempt in range(1, plans.ATTEMPTS + 1):
            try:
                if not begun:
                    again, begun = self._beginnings.add(shard), True
                if again:  # what was done before its process died may have been read, and stays as it is
                    record = done_record(shard.index, self._out.folder)
                record = record or do_shard(shard, self._job, self._out, again=again)
                failure = ""
                break
            except DiedTooOften as error:
                failure, final = str(error), True
                break
            except Exception as error:  # of the job, or of the storage around it
                failure, again = described(error), True
                if attempt < plans.ATTEMPTS:
                    time.sleep(plans.RETRY_SECONDS * attempt)
        if failure and begun and not final:
            self._beginnings.end(shard)
        return {"index": shard.index, "record": json.dumps(record or {}), "failure": failure, "final": final}
