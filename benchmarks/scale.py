"""Scale: 120 million rows in 17,181 shards with stub work, killed after half and resumed.

    python -m benchmarks.scale [SHARDS]      17,181 by default; `make bench` runs 1,200

Time and memory of a shard must not grow with the number of shards: the ratio compares the begin of the run
with its end. Reported beside it: planning, the work with its done records, a run with nothing left to do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.compare import Comparison
from benchmarks.stub_stage import ROWS, StubJob, stub_shards
from pipelines.dag import cluster
from pipelines.dag.artifact import MANIFEST
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shard_records import DONE, read_done, write_plan
from pipelines.dag.shards import WorkerResources, map_shards
from pipelines.dag.stage_log import StageLog
from pipelines.dag.workspace import Workspace

MODULE = "benchmarks.scale"
REDUCED, FULL, WORKERS = 1200, 17_181, 2


class Trace(StageLog):
    """Writes time, CPU-seconds and memory of the driver at each shard to a file."""

    def __init__(self, path: Path, every: int) -> None:
        super().__init__("scale")
        self._file, self._every, self._calls = path.open("w"), every, 0
        self._begun, self._process = time.monotonic(), psutil.Process()

    def progress(self, done: float, total: float, unit: str = "rows") -> None:
        """Note where the driver stands."""
        if self._calls % self._every == 0 or done == total:
            used = self._process.cpu_times()
            cpu, memory = used.user + used.system, self._process.memory_info().rss
            entry = [done / ROWS, time.monotonic() - self._begun, cpu, memory]
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        self._calls += 1


def run(shards: int = REDUCED) -> Comparison:
    """Run, kill after half, resume; see the module."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        url, traces = f"{folder}/stubs", [Path(folder, f"trace-{part}") for part in (1, 2)]
        begun = time.monotonic()
        write_plan(stub_shards(shards), Workspace(url))
        planning = time.monotonic() - begun
        _half(url, shards, traces[0])
        kept = len(read_done(stub_shards(shards), Workspace(url)))
        subprocess.run([sys.executable, "-m", MODULE, "drive", url, str(shards), str(traces[1])], check=True)
        begun = time.monotonic()
        stats = map_shards(
            stub_shards(shards), StubJob(), Workspace(url)
        )  # nothing is left: Ray does not start
        nothing = time.monotonic() - begun
        out = Workspace(url)
        out.digests = {}
        begun = time.monotonic()
        out.publish({"stage": "stub"})
        publishing, manifest = time.monotonic() - begun, Path(url, MANIFEST).stat().st_size
        if stats["rows_in"] != shards * ROWS or stats["rows_out"] + stats["dropped_stub"] != stats["rows_in"]:
            raise RuntimeError(f"rows were lost: {stats}")
        if len(list(Path(url).glob("train-*.txt"))) != shards:
            raise RuntimeError("shards are missing")
        first, resumed = ([json.loads(line) for line in path.read_text().splitlines()] for path in traces)
    early, late = _per_shard(first, 0.1, 0.5), _per_shard(resumed, 0.5, 1.0)
    growth = (resumed[-1][3] - resumed[len(resumed) // 10][3]) / max(1, shards - kept)
    for line in (
        f"{shards:,} shards, {shards * ROWS:,} rows; {kept:,} done when the driver was killed",
        f"planning {1e3 * planning / shards:.3f} ms a shard, {planning:.2f} s in all",
        f"a shard, early in the first run: {1e3 * early[0]:.1f} ms, the driver's CPU {1e3 * early[1]:.1f} ms",
        f"a shard, late in the resumed run: {1e3 * late[0]:.1f} ms, the driver's CPU {1e3 * late[1]:.1f} ms",
        f"memory of the driver: {resumed[-1][3] / 2**20:.0f} MB at the end, {growth / 1024:.1f} kB a shard",
        f"a run with nothing left to do: {nothing:.2f} s, {1e3 * nothing / shards:.3f} ms a shard",
        f"publishing: {publishing:.2f} s, a manifest of {manifest / 1e3:,.0f} kB",
    ):
        print(f"  {line}", file=sys.stderr, flush=True)
    return Comparison(
        name=f"scale: a shard of {shards:,}, late in the run, driver",
        ours=late[1],
        peer="early in the run",
        theirs=early[1],
        ratio=early[1] / late[1],
        checked=f"{1e3 * late[0]:.0f} and {1e3 * early[0]:.0f} ms of wall-clock; {growth / 1024:.1f} kB",
    )


def _half(url: str, shards: int, trace: Path) -> None:
    """Run until half of the shards are done, then kill the driver."""
    command = [sys.executable, "-m", MODULE, "drive", url, str(shards), str(trace)]
    process = subprocess.Popen(command)
    done = Path(url, DONE)
    while process.poll() is None and (not done.is_dir() or len(os.listdir(done)) < shards // 2):
        time.sleep(0.2)
    if process.poll() is not None:
        raise RuntimeError("the driver ended before half of the shards were done")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _per_shard(trace: Sequence[Sequence[float]], begin: float, end: float) -> tuple[float, float]:
    """Wall-clock and CPU-seconds of one shard between two fractions of a trace."""
    a, b = trace[int(begin * (len(trace) - 1))], trace[int(end * (len(trace) - 1))]
    return (b[1] - a[1]) / (b[0] - a[0]), (b[2] - a[2]) / (b[0] - a[0])


def _drive(url: str, shards: int, trace: Path) -> None:
    cluster.configure(ClusterConfig(num_cpus=WORKERS))
    out = Workspace(url, log=Trace(trace, max(1, shards // 200)))
    map_shards(stub_shards(shards), StubJob(), out, WorkerResources(workers=WORKERS, cpus=1))
    cluster.shutdown()


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        _drive(sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
    else:
        found = run(int(sys.argv[1]) if len(sys.argv) > 1 else FULL)
        print(f"{found.name}: {found.checked}; ratio {found.ratio:.2f}")
