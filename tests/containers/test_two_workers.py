"""Two workers as two hosts, disturbed in every way at every moment: the bytes are those of a quiet run.

A Latin square: three runs, in each of which a worker's process is killed, its link is cut for 90 s, and the
head is killed and the job submitted again, once in the download, once in the encoding, once in the training.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers.conftest import UP_SECONDS, Cluster, NewCluster, run, succeeded

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
CUT_SECONDS, BACK_SECONDS = 90, 120
NOTICE_SECONDS = 60
"""The head finds a lost node by five heartbeats of 10 s; a busy machine needs longer."""


@pytest.fixture(scope="module")
def cluster(new_cluster: NewCluster) -> Cluster:
    made = new_cluster(REPTOK_WORKERS="2", REPTOK_CPUS="2")
    made.up()
    wait_for(lambda: len(alive(made)) == 3, UP_SECONDS)
    return made


def nodes(cluster: Cluster) -> list[dict]:
    """What the dashboard knows of the nodes; nothing while it does not answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{cluster.ports['DASHBOARD']}/nodes?view=summary",
        headers={"Authorization": f"Bearer {cluster.values()['ray-token']}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]["summary"]
    except OSError:
        return []


def alive(cluster: Cluster) -> set[str]:
    return {node["raylet"]["nodeId"] for node in nodes(cluster) if node["raylet"]["state"] == "ALIVE"}


def wait_for(condition: Callable[[], bool], seconds: float) -> float:
    """Wait until `condition`; the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(1)
    return time.monotonic() - begun


def restarts(cluster: Cluster, name: str) -> int:
    return cluster.containers()[name]["RestartCount"]


def kill(cluster: Cluster, name: str) -> None:
    """End a container's first process from outside; the restart policy has to bring it back."""
    before = restarts(cluster, name)
    os.kill(cluster.containers()[name]["State"]["Pid"], 9)
    wait_for(lambda: restarts(cluster, name) > before, 60)


def kill_worker(cluster: Cluster) -> None:
    before = alive(cluster)
    kill(cluster, "worker-1")
    took = wait_for(lambda: len(alive(cluster)) == 3 and alive(cluster) != before, BACK_SECONDS)
    print(f"worker killed, back after {took:.0f} s")


def cut_link(cluster: Cluster) -> None:
    network, name = f"{cluster.project}_cluster", f"{cluster.project}-worker-2"
    succeeded(run(["docker", "network", "disconnect", network, name]))
    time.sleep(CUT_SECONDS)
    try:
        noticed = wait_for(lambda: len(alive(cluster)) == 2, NOTICE_SECONDS)
    finally:
        succeeded(run(["docker", "network", "connect", "--alias", "worker", network, name]))
    took = wait_for(lambda: len(alive(cluster)) == 3, BACK_SECONDS)
    print(f"link cut for {CUT_SECONDS + noticed:.0f} s, back {took:.0f} s after")


def kill_head(cluster: Cluster) -> None:
    kill(cluster, "head-1")
    took = wait_for(lambda: len(alive(cluster)) == 3, 180)
    print(f"head killed, all back after {took:.0f} s")


FAULTS = {"kill": kill_worker, "cut": cut_link, "head": kill_head}
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


def works(cluster: Cluster, name: str) -> bool:
    """Whether a training's process runs in a container."""
    index = int(name.rpartition("-")[2])
    shown = cluster.shell(
        "worker", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2> /dev/null; true", index
    )
    return bool(re.search(r"ray::(?!IDLE|Dashboard)\S*", shown))


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
