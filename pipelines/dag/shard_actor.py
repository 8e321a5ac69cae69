"""What a worker process does with a shard: attempts, the done record, and a count of its own deaths."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from pipelines.dag import shards as plans
from pipelines.dag.earlier import asked, reused
from pipelines.dag.failures import described
from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.shard_records import UNCOUNTED, Record, checked_stats, done_record, record_name
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import SCRATCH, Workspace

BEGUN = f"{SCRATCH}/shards/begun"


class DiedTooOften(RuntimeError):
    """A shard took its worker process down with it, again and again."""


def do_shard(shard: Shard, job: ShardJob, out: Workspace) -> Record:
    """Do a shard and write its done record, which is returned."""
    out = Workspace(out.url, out.fingerprint)
    made, out.earlier = job.made_of(shard), asked(out)
    of = out.earlier.of(shard, made) if out.earlier and made else ""
    record = reused(shard, job, out, of, out.earlier) if out.earlier and of else None
    if record is None:
        if shard.rows == UNCOUNTED:
            shard = replace(shard, rows=job.rows_of(shard))
        stats = checked_stats(shard, job(shard, out))
        record = {"name": shard.name, "rows": shard.rows, "stats": stats, "files": out.digests}
    if of:
        record |= {"of": of, "named": list(job.files_of(shard))}
    out.folder.write_bytes(record_name(shard.index), canonical_json(record))
    return record


class ShardActor:
    """Sets a job up and does one shard after another.

    Args:
        job: what to do.
        out: the stage's workspace.
        invocation: of the job; deaths in another one do not count.
        node: where this process runs.
        alive: names the machines that are there now. A process that ended with its machine was taken away,
            and the shard is not to blame.
    """

    def __init__(
        self,
        job: ShardJob,
        out: Workspace,
        invocation: str = "alone",
        node: str = "",
        alive: Callable[[], Collection[str]] = lambda: ("",),
    ) -> None:
        self._job, self._out, self._invocation = job, out, invocation
        self._node, self._alive = node, alive
        job.setup()

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Do the shard that a row describes, three times at most.

        Returns:
            Its "index"; "record", the done record as JSON; "failure", why there is none; and "final", whether
            no other process need try.
        """
        shard = Shard(**json.loads(row["shard"]))
        record: Record = {}
        failure, final, counted = "", False, False
        for attempt in range(1, plans.ATTEMPTS + 1):
            try:
                if not counted:
                    record = self._begin(shard)
                    counted = True
                record, failure = record or do_shard(shard, self._job, self._out), ""
                break
            except DiedTooOften as error:
                failure, final = str(error), True
                break
            except Exception as error:  # of the job, or of the storage around it
                failure = described(error)
                if attempt < plans.ATTEMPTS:
                    time.sleep(plans.RETRY_SECONDS * attempt)
        if failure and counted and not final:
            self._end(shard)
        return {"index": shard.index, "record": json.dumps(record), "failure": failure, "final": final}

    def _begin(self, shard: Shard) -> Record:
        """Remember that this shard begins here; its record, should it be done.

        Ray begins a lost shard again, without end and in another process: only the storage knows. What was
        done before its process died may have been read by now, and must not be written again.

        Raises:
            DiedTooOften: its process died each time, on machines that are still there.
        """
        name = self._begun(shard)
        folder = self._out.folder
        nodes = json.loads(folder.read_bytes(name)) if folder.exists(name) else []
        if nodes and (known := done_record(shard.index, folder)):
            return known
        if len(nodes) >= plans.ATTEMPTS:
            alive = self._alive()
            died = sum(node in alive for node in nodes)
            if died >= plans.ATTEMPTS:
                raise DiedTooOften(f"its worker process died {died} times (out of memory?)")
        folder.write_bytes(name, json.dumps([*nodes, self._node]).encode())
        return {}

    def _end(self, shard: Shard) -> None:
        """Forget the shard's beginning: it failed, and nobody died."""
        try:
            self._out.folder.remove(self._begun(shard))
        except OSError:
            return  # it counts as a death, then

    def _begun(self, shard: Shard) -> str:
        return f"{BEGUN}/{self._invocation}/{shard.index:06d}"
