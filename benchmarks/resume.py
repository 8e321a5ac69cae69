"""C18: what a killed job of 17,181 shards on S3 needs before it goes on, with half of them done.

    python -m benchmarks.resume [SHARDS]     17,181 by default; `make bench` runs 1,718

The server is moto's, in a process of its own. The half is done with stub work by the code that workers run,
and counted by the tally that folds its records; then the driver is gone. Its successor reads plan and
records and knows what is missing: that is timed, with folded records and, as the peer, with single ones.
Reported beside it: planning, the requests, publishing what is there, and comparing it with its manifest.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TypeVar
from unittest.mock import patch

from benchmarks.compare import Comparison
from benchmarks.requests import ACCESS, CountedServer
from benchmarks.stub_stage import StubJob, stub_shards
from pipelines.dag.artifact import Artifact, faults
from pipelines.dag.shard_actor import do_shard
from pipelines.dag.shard_records import FOLDED
from pipelines.dag.shards import ShardWork
from pipelines.dag.stage_log import StageLog
from pipelines.dag.storage import many
from pipelines.dag.tally import Tally
from pipelines.dag.workspace import Workspace

REDUCED, FULL = 1_718, 17_181
URL = "s3://reptok/runs/stubs/0"
T = TypeVar("T")


class Silent(StageLog):
    """Swallows the progress, too."""

    def progress(self, done: float, total: float, unit: str = "rows") -> None:
        """Nothing."""


def workspace() -> Workspace:
    """The job's, as a new driver opens it."""
    return Workspace(URL, log=Silent("stub"), fenced=True)


def run(shards: int = REDUCED) -> Comparison:
    """Do half, and take it up twice; see the module."""
    with _served() as requests:
        work = ShardWork(shards=stub_shards(shards), job=StubJob())
        tally, planning = _timed(lambda: Tally(work, workspace()))
        half = work.shards[: shards // 2]
        for start in range(0, len(half), 500):
            part = half[start : start + 500]
            out = workspace()
            records = many(lambda shard, out=out: do_shard(shard, work.job, out), part)  # type: ignore[misc]
            for shard, record in zip(part, records, strict=True):
                tally.take(shard.index, record, "")
        del tally
        counted = requests()
        resumed, folded = _timed(lambda: Tally(work, workspace()))
        asked = requests() - counted
        if [shard.index for shard in resumed.missing] != list(range(len(half), shards)):
            raise RuntimeError("what is missing is not the other half")
        workspace().folder.remove(FOLDED)
        counted = requests()
        again, single = _timed(lambda: Tally(work, workspace()))
        asked_single = requests() - counted
        if again._done != resumed._done:
            raise RuntimeError("folded records are not the single ones")
        out = workspace()
        for record in again._done.values():
            out.digests.update(record["files"])
        _, publishing = _timed(lambda: out.publish({"stage": "stub"}))
        found, comparing = _timed(lambda: faults(Artifact("stubs", "0", URL)))
        if found:
            raise RuntimeError(f"the artifact is not sound: {found[:3]}")
    for line in (
        f"{shards:,} shards, {len(half):,} of them done; planning {planning:.2f} s",
        f"taken up: {folded:.2f} s, {asked:,} requests; from single records {single:.2f} s, {asked_single:,}",
        f"published: {publishing:.2f} s; compared with its manifest: {comparing:.1f} s",
    ):
        print(f"  {line}", file=sys.stderr, flush=True)
    return Comparison(
        name=f"C18 resume of {len(half):,} of {shards:,} shards on S3, seconds",
        ours=folded,
        peer="single records",
        theirs=single,
        ratio=single / folded,
        checked=f"{asked:,} requests where it was {asked_single:,}; the same records",
    )


def _timed(function: Callable[[], T]) -> tuple[T, float]:
    """Result, and seconds of wall-clock: most of them are waited."""
    begun = time.perf_counter()
    result = function()
    return result, time.perf_counter() - begun


@contextmanager
def _served() -> Iterator[Callable[[], int]]:
    """A server in another process, which the environment names; tells how many requests it has had."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    url: str = here.recv()

    def requests() -> int:
        here.send("count")
        count: int = here.recv()
        return count

    try:
        with patch.dict(os.environ, {**ACCESS, "AWS_ENDPOINT_URL": url}):
            yield requests
    finally:
        process.terminate()
        process.join()


def _serve(connection: Connection) -> None:
    server = CountedServer()
    connection.send(server.url)
    while connection.recv():
        connection.send(server.counts.total())


if __name__ == "__main__":
    found = run(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)
    print(f"{found.name}: {found.ours:.2f}, {found.theirs:.2f} from {found.peer} ({found.checked})")
