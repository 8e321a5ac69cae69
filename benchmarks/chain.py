"""A chain of four steps over stub work: its wall time over that of its slowest step alone.

    python -m benchmarks.chain [SHARDS]      1,000 by default; `make bench` runs 200

Each step sleeps, reads what the one before has made of its shard, and writes a file. Reported beside the
ratio: when the last step has done its first shard; the sum of the steps, which stages that wait for each
other take at least; what the driver computes for each shard, and how busy the machine is, since what sleeps
takes its time on a busy machine too, and what Ray and we do for a shard takes longer.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.compare import Comparison
from pipelines.dag import runner
from pipelines.dag.artifact import Artifact
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shard_records import UNCOUNTED
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.stage import Workspace
from pipelines.dag.tracking import TrackingConfig

REDUCED, FULL, WORKERS = 200, 1000, 2
SECONDS = (0.2, 0.4, 0.1, 0.3)
"""Of a shard in each step."""


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How many shards, how long each takes, and who works."""

    shards: int
    seconds: float = insignificant(0.0)
    workers: WorkerResources = insignificant(WorkerResources(workers=WORKERS, cpus=0.1))


@dataclass(frozen=True)
class StepJob(ShardJob):
    """Wait, and pass a shard's file on."""

    seconds: float
    source: Artifact | None

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `part-{i}.txt`: a line for each step so far."""
        lines = b""
        if self.source is not None:
            with self.source.open(f"{shard.name}.txt") as file:
                lines = file.read()
        time.sleep(self.seconds)
        out.write_bytes(f"{shard.name}.txt", lines + f"{time.time()}\n".encode())
        return {"rows_in": 1, "rows_out": 1}

    def rows_of(self, shard: Shard) -> int:
        """One."""
        return 1

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The file."""
        return (f"{shard.name}.txt",)


class StubStep(ShardStage):
    """Step `number` of the chain."""

    def __init__(self, config: StepConfig, number: int) -> None:
        self.name, self.output = f"step_{number}", f"parts_{number}"
        self.inputs = self.by_shard = (f"parts_{number - 1}",) if number else ()
        super().__init__(config)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """As many shards as configured."""
        shards = [Shard(i, f"part-{i:05d}", UNCOUNTED, {}) for i in range(self.config.shards)]
        source = next(iter(inputs.values()), None)
        return ShardWork(shards=shards, job=StepJob(self.config.seconds, source), workers=self.config.workers)


def run(shards: int = REDUCED) -> Comparison:
    """Run the slowest step alone, then all as a chain."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        alone, _, computed_alone = _run([max(SECONDS)], shards, f"{folder}/alone")
        chain, begun, computed = _run(SECONDS, shards, f"{folder}/chain")
        (last,) = Path(folder, "chain", f"parts_{len(SECONDS) - 1}").iterdir()
        times = [
            [float(line) for line in path.read_text().split()] for path in sorted(last.glob("part-*.txt"))
        ]
    if len(times) != shards or any(row != sorted(row) or len(row) != len(SECONDS) for row in times):
        raise RuntimeError("a shard went another way than through the steps in order")
    first_done = min(row[0] for row in times)
    first_last = min(row[-1] - SECONDS[-1] for row in times) - first_done
    waiting = sum(SECONDS) / WORKERS * shards
    between = sum(SECONDS[1:-1])
    for line in (
        f"{shards:,} shards: the chain {chain:.1f} s, its first shard after {first_done - begun:.1f} s",
        f"the slowest step alone {alone:.1f} s; one step after the other, at least {waiting:.1f} s",
        f"the last step begins {first_last:.2f} s after the first shard is there ({between:.2f} s between)",
        f"the driver computes {1000 * computed / shards:.1f} ms a shard, "
        f"{1000 * computed_alone / shards:.1f} ms for the one step",
        f"load {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores",
    ):
        print(f"  {line}", file=sys.stderr, flush=True)
    return Comparison(
        name=f"chain of {len(SECONDS)} steps, {shards:,} shards, wall-clock",
        ours=chain,
        peer="its slowest step alone",
        theirs=alone,
        ratio=alone / chain,
        checked=f"{chain / alone:.2f} of it; the last step begins after {first_last:.1f} s",
    )


def _run(seconds: tuple[float, ...] | list[float], shards: int, root: str) -> tuple[float, float, float]:
    """Run steps; seconds that it took, when it began, and CPU-seconds of the driver."""
    stages = [StubStep(StepConfig(shards=shards, seconds=s), number) for number, s in enumerate(seconds)]
    at, begun, computed = time.time(), time.monotonic(), time.process_time()
    results = runner.run(
        stages, root=root, cluster=ClusterConfig(num_cpus=2), tracking=TrackingConfig(enabled=False)
    )
    if failed := [result.error for result in results if result.error]:
        raise RuntimeError(failed)
    return time.monotonic() - begun, at, time.process_time() - computed


if __name__ == "__main__":
    found = run(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)
    print(f"{found.name}: {found.checked}")
