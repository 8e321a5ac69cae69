"""C7: what a Ray Data stage costs beyond `ray.init`, however small it is."""

from __future__ import annotations

import tempfile
import time
from statistics import median

from benchmarks.compare import Comparison
from benchmarks.stub_stage import StubJob, stub_shards
from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import WorkerResources, map_shards
from pipelines.dag.workspace import Workspace

GOAL_SECONDS, STAGES = 10.0, 5


def run() -> Comparison:
    """Wall-clock seconds of the first stage, which loads Ray Data and starts workers, and of later ones."""
    cluster.configure(ClusterConfig(num_cpus=2))
    begun = time.monotonic()
    cluster.ensure()
    init = time.monotonic() - begun
    times = []
    try:
        for _ in range(STAGES):
            begun = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                resources = WorkerResources(workers=2, cpus=1)
                stats = map_shards(stub_shards(2), StubJob(), Workspace(folder), resources)
            times.append(time.monotonic() - begun)
            if stats["rows_in"] != 20_000:
                raise RuntimeError(f"the stub stage counted {stats}")
    finally:
        cluster.shutdown()
    return Comparison(
        name="C7 a Ray Data stage of two empty shards (wall-clock s)",
        ours=times[0],
        peer="goal",
        theirs=GOAL_SECONDS,
        ratio=GOAL_SECONDS / times[0],
        checked=f"the stages after it: median {median(times[1:]):.1f} s; ray.init took {init:.1f} s",
    )
