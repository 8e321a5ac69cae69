"""Two workers as two hosts, disturbed in every way at every moment: the bytes are those of a quiet run.

A Latin square: three runs, in each of which a worker's process is killed, its link is cut for 90 s, and the
head is killed and the job submitted again, once in the download, once in the encoding, once in the training.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.conftest import UP_SECONDS, Cluster, NewCluster
from tests.containers.machines import BACK_SECONDS, alive, cut_link, kill, wait_for, works

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
WORKLOAD = (
    "experiment=smoke", "data.photographs.images=600", "data.select_urls.rows_per_shard=40",
    "train.tokenizer.steps=150", "train.tokenizer.checkpoint_every_seconds=5",
)  # fmt: skip
DATA = ("web", "urls", "images", "captions", "dataset", "latents", "tokens")
MOMENTS = {
    "download": ("download", r"download: run \("),
    "encoding": ("encode_latents", r"encode_latents: run \("),
    "training": ("train_tokenizer", r"train_tokenizer: [\d,]+ of [\d,]+ steps \((?!100)"),
}
"""The stage of a moment, and the line by which it has come."""


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    made = new_cluster(REPTOK_WORKERS="2", REPTOK_CPUS="2")
    made.up()
    wait_for(lambda: len(alive(made)) == 3, UP_SECONDS)
    return made


def kill_worker(cluster: Cluster) -> None:
    before = alive(cluster)
    kill(cluster, "worker-1")
    took = wait_for(lambda: len(alive(cluster)) == 3 and alive(cluster) != before, BACK_SECONDS)
    print(f"worker killed, back after {took:.0f} s")


def kill_head(cluster: Cluster) -> None:
    kill(cluster, "head-1")
    took = wait_for(lambda: len(alive(cluster)) == 3, 180)
    print(f"head killed, all back after {took:.0f} s")


FAULTS: dict[str, Callable[[Cluster], None]] = {
    "kill": kill_worker, "cut": lambda cluster: cut_link(cluster, "worker-2"), "head": kill_head,
}  # fmt: skip
SQUARE = (
    {"download": "kill", "encoding": "cut", "training": "head"},
    {"download": "cut", "encoding": "head", "training": "kill"},
    {"download": "head", "encoding": "kill", "training": "cut"},
)


class Job:
    """The workflow in a root and an MLflow experiment of its own, submitted as often as it takes."""

    def __init__(self, cluster: Cluster, name: str, log: Path) -> None:
        self.cluster, self.name, self.path = cluster, name, log

    def submit(self, moment: str | None = None) -> None:
        """Start it, up to the stage of a moment: so that no fault finds its stage done by the one before."""
        until = [f"until={MOMENTS[moment][0]}"] if moment else []
        job = ["ray", "job", "submit", "--", "python", "pipelines/run_all.py", *WORKLOAD, *until]
        self.process = subprocess.Popen(
            ["docker", "compose", "exec", "-T", "head", *job,
             f"root=/data/{self.name}", f"tracking.experiment={self.name}"],
            cwd=self.cluster.clone, env=self.cluster.environment,
            stdout=self.path.open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def log(self) -> str:
        return self.path.read_text()

    def reaches(self, moment: str) -> None:
        stage, line = MOMENTS[moment]
        wait_for(lambda: bool(re.search(line, self.log())) or self.process.poll() is not None, 600)
        assert re.search(line, self.log()) and f"{stage}: done" not in self.log(), self.log()[-3000:]

    def finish(self) -> None:
        assert self.process.wait(timeout=900) == 0, self.log()[-5000:]


def files(cluster: Cluster, name: str) -> dict[str, dict[str, str]]:
    """Digests of data and weights."""
    found = cluster.digests(f"/data/{name}")
    weights = {
        kind: {file: digest for file, digest in found[kind].items() if file.endswith(".safetensors")}
        for kind in ("tokenizer", "generator", "model")
    }
    assert all(weights.values())
    return {kind: found[kind] for kind in DATA} | weights


@pytest.fixture(scope="module")
def quiet(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    job = Job(cluster, "quiet", tmp_path_factory.mktemp("quiet") / "log")
    job.submit()
    job.reaches("training")
    busy = {name for name in ("worker-1", "worker-2") if works(cluster, name)}
    job.finish()
    assert busy == {"worker-1", "worker-2"}
    return files(cluster, "quiet")


def test_the_cluster_counts_each_cpu_once(cluster):
    shown = cluster.shell("head", "python -c 'import ray; ray.init(); print(ray.cluster_resources())'")
    assert f"'CPU': {min(2.0, os.cpu_count() or 1)}" in shown


def test_two_workers_share_the_work(quiet):
    assert quiet["images"]


@pytest.mark.parametrize("number", range(3))
def test_a_disturbed_run_gives_the_bytes_of_a_quiet_one(cluster, quiet, number, tmp_path):
    job = Job(cluster, f"disturbed-{number}", tmp_path / "log")
    for moment, fault in SQUARE[number].items():
        job.submit(moment)
        job.reaches(moment)
        FAULTS[fault](cluster)
        if fault == "head":
            assert job.process.wait(timeout=60) != 0
            job.submit(moment)
        job.finish()
    job.submit()
    job.finish()
    assert files(cluster, job.name) == quiet
    script = (
        "from mlflow import MlflowClient; from collections import Counter; import json; c = MlflowClient();"
        f"e = c.get_experiment_by_name('{job.name}');"
        "print(json.dumps(Counter(r.info.run_name for r in c.search_runs([e.experiment_id]))))"
    )
    runs = json.loads(cluster.shell("head", f'python -c "{script}"'))
    assert set(runs.values()) == {1}, "an interrupted run is continued, the parent is found again"


def test_the_square_is_latin():
    for moment in MOMENTS:
        assert {row[moment] for row in SQUARE} == FAULTS.keys()
    assert all(set(row.values()) == FAULTS.keys() for row in SQUARE)
