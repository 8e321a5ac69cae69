"""A chain where there is little room: it never waits for ever."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy_chain import digests, run, stages

PROGRAM = """
import sys
from pathlib import Path
from ray.cluster_utils import Cluster
from pipelines.dag.cluster import ClusterConfig
from toy_chain import run, stages
made = Cluster(initialize_head=True, head_node_args={"num_cpus": int(sys.argv[2])})
found = run(stages(shards=4), sys.argv[1], cluster=ClusterConfig(address=made.address))
assert not any(result.error for result in found.values()), found
print({name: result.artifact.digest for name, result in found.items()})
made.shutdown()
"""


@pytest.mark.slow
def test_six_workers_share_one_cpu_of_our_own(tmp_path, monkeypatch):
    """On this machine's own Ray what a worker occupies is a word."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    waiting = digests(run(stages(shards=4), tmp_path / "waiting", cpus=1, chain=False))
    assert digests(run(stages(shards=4), tmp_path / "chain", cpus=1)) == waiting


@pytest.mark.slow
@pytest.mark.parametrize(("cpus", "waits"), [(1, "shout"), (2, "count")])
def test_on_a_small_cluster_the_last_stages_wait(cpus, waits, tmp_path, monkeypatch):
    place = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    environment = {"PYTHONPATH": ":".join(place), "PATH": "/usr/bin:/bin", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "store"), str(cpus)],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{waits}: no room for a worker beside those of the stages before it" in done.stdout
