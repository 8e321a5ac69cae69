"""What is known of a job's shards: which are done, with what, which failed, why, and the sum of it all."""

from __future__ import annotations

import json
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.dag.earlier import write_made
from pipelines.dag.failures import LOST, report
from pipelines.dag.redaction import redacted
from pipelines.dag.shard_records import (
    FOLD,
    UNCOUNTED,
    Record,
    fold,
    read_done,
    record_name,
    write_plan,
)
from pipelines.dag.wanted import Reach, place_of, tell_end
from pipelines.dag.workspace import Workspace

if TYPE_CHECKING:
    from pipelines.dag.shards import Shard, ShardWork

QUARANTINE = "quarantined.json"
"""Names the shards that an artifact lacks, with their rows and why; absent if it lacks none."""


class ShardError(RuntimeError):
    """Some shards failed; the others are done and kept."""


class Tally:
    """Keeps count of the shards of one artifact, from the plan and the records on.

    Args:
        work: the job.
        out: the stage's workspace; its log is told the progress.

    Attributes:
        work: the job, without the shards beyond the end.
        end: the place at which the artifact ends, as far as is known (see `wanted`); None if it does not.

    Raises:
        ValueError: the plan differs from the one this workspace was begun with.
    """

    def __init__(self, work: ShardWork, out: Workspace) -> None:
        self.work, self._given, self._out = work, work.shards, out
        self._given_end: int | None = None
        self.end: int | None = None
        self._reach = Reach(work.wanted) if work.wanted else None
        self._failures: dict[int, str] = {}
        self._unfolded: dict[int, Record] = {}
        self._done: dict[int, Record] = {}
        self._planned = write_plan(work.shards, out)
        self._count()
        for index, record in read_done(work.shards, out).items():
            self._add(index, record)
        if self._reach:
            tell_end(out, self.end)
        if self._done and self.missing:
            known = f"{len(self._done)} of {len(self.work.shards)} shards are done already"
            print(f"  {out.log.stage}: {known}", flush=True)
        if self.missing:
            self._tell()

    @property
    def missing(self) -> list[Shard]:
        """The shards that are not done, in order."""
        return [shard for shard in self.work.shards if shard.index not in self._done]

    @property
    def complete(self) -> bool:
        """Whether all shards are done."""
        return len(self._done) == len(self.work.shards)

    def take(self, index: int, record: Record, failure: str) -> None:
        """Count the outcome of a shard, once: the first record of it counts."""
        if failure:
            self._failures[index] = failure
        elif index in self._places and index not in self._done:
            end = self.end
            self._add(index, record)
            self._unfolded[index] = record
            if len(self._unfolded) >= FOLD:
                fold(self._unfolded, self._out)
                self._unfolded.clear()
            if self._reach and self.end != end:
                tell_end(self._out, self.end)
            size = sum(file["size"] for file in record["files"].values())
            self._out.log.rows(record["stats"], size, self.work.job.reasons)
            if self.work.watch:
                self.work.watch(record["stats"])
            self._tell()

    def look(self, announced: MutableMapping[str, str]) -> None:
        """Take the records that workers have announced since."""
        for name in list(announced):
            self.take(int(name), json.loads(announced.pop(name)), "")

    def cut(self, end: int | None) -> None:
        """Leave out what lies at this place and behind it, where what it is made from ends.

        Raises:
            NotImplementedError: the job does not say which files those are.
        """
        if end is not None and (self._given_end is None or end < self._given_end):
            self._given_end = end
        self._end_at(end)

    def _end_at(self, end: int | None) -> None:
        if end is None or (self.end is not None and self.end <= end):
            return
        if self._planned and not self.work.job.files_of(self._planned[0]):
            name = type(self.work.job).__name__
            raise NotImplementedError(f"{name} is to leave shards out, and has no files_of() to name theirs")
        self.end = end
        self.work = replace(self.work, shards=[s for s in self.work.shards if place_of(s) < end])
        self._count()

    def _count(self) -> None:
        """Know the shards, and what of them is done."""
        shards = self.work.shards
        self._places = {shard.index: place_of(shard) for shard in shards}
        self._done = {index: record for index, record in self._done.items() if index in self._places}
        counted = all(shard.rows != UNCOUNTED for shard in shards)
        self._unit = "rows" if counted else "shards"
        self._total = sum(shard.rows for shard in shards) if counted else len(shards)
        self._so_far = sum(map(self._worth, self._done.values()))

    def _add(self, index: int, record: Record) -> None:
        """Count a shard that is done."""
        if index not in self._places:
            return
        self._done[index] = record
        self._so_far += self._worth(record)
        if self._reach:
            self._reach.add(self._places[index], record["stats"])
            self._end_at(self._reach.end)

    def stats(self) -> dict[str, float]:
        """The summed stats of all shards; the workspace knows the digests of all files then.

        Raises:
            ShardError: more shards failed than may; names each with its cause.
        """
        self.discard()
        lost = [(shard, self._failures.get(shard.index, LOST)) for shard in self.missing]
        if len(lost) > self.work.workers.max_failed * len(self.work.shards):
            raise ShardError(report([(shard.name, cause) for shard, cause in lost], len(self.work.shards)))
        write_made(self._done, self._out)
        stats: dict[str, float] = {}
        if self._reach:
            end = self._given_end
            given = [shard for shard in self._given if end is None or place_of(shard) < end]
            stats["shards_beyond"] = float(len(given) - len(self.work.shards))
        for index in sorted(self._done):
            self._out.digests.update(self._done[index]["files"])
            self._out.summaries.update(self._done[index]["summaries"])
            for key, value in self._done[index]["stats"].items():
                stats[key] = stats.get(key, 0.0) + value
        if not lost:
            self._out.folder.remove(QUARANTINE)  # of an attempt before
            return stats
        return self._quarantined(lost, stats)

    def discard(self) -> None:
        """Remove what was made of shards beyond the end; what workers yet write of them is not published."""
        beyond = [shard for shard in self._planned if shard.index not in self._places]
        if not beyond:
            return
        self._out.left_out = {name for shard in beyond for name in self.work.job.files_of(shard)}
        gone = self._out.left_out | {record_name(shard.index) for shard in beyond}
        for name in gone & self._out.folder.sizes().keys():
            self._out.folder.remove(name)

    def _quarantined(self, lost: Sequence[tuple[Shard, str]], stats: dict[str, float]) -> dict[str, float]:
        """Name the shards that are given up, and count their rows as dropped."""
        job, out = self.work.job, self._out
        print(f"  given up: {report([(s.name, cause) for s, cause in lost], len(lost))}", flush=True)
        for shard, _ in lost:
            job.absent(shard, out)
        counts = [job.rows_of(shard) if shard.rows == UNCOUNTED else shard.rows for shard, _ in lost]
        named = [
            {"shard": shard.name, "rows": rows, "cause": redacted(cause)}
            for (shard, cause), rows in zip(lost, counts, strict=True)
        ]
        out.write_json(QUARANTINE, named)
        return {
            **stats,
            "rows_in": stats.get("rows_in", 0.0) + sum(counts),
            "dropped_quarantined": float(sum(counts)),
            "shards_quarantined": float(len(lost)),
        }

    def _worth(self, record: Record) -> int:
        """What a done shard adds to the progress."""
        return int(record["rows"]) if self._unit == "rows" else 1

    def _tell(self) -> None:
        self._out.log.progress(self._so_far, self._total, self._unit)
