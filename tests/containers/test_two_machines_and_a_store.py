"""Two machines that share no folder, with an S3 server between them, one of them cut off again and again.

The whole workflow, in a chain where that is possible, gives the bytes that one undisturbed machine gives: on
Garage, which does not keep the conditions of writes, and on moto's server, which does.
"""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.containers.conftest import IMAGE, JOB_SECONDS, UP_SECONDS, Cluster, NewCluster, run, succeeded
from tests.containers.machines import alive, cut_link, wait_for, works
from tests.containers.test_profiles import bases

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
WORKLOAD = (
    "experiment=smoke", "data.photographs.images=400", "data.select_urls.rows_per_shard=40",
    "data.download.workers.cpus=0.2", "captioner.workers.cpus=0.2", "data.shard.workers.cpus=0.2",
    "encode.workers.cpus=0.2",
    "train.tokenizer.steps=150", "train.tokenizer.checkpoint_every_seconds=5",
    "train.generator.steps=150", "train.generator.checkpoint_every_seconds=5",
    "train.generator.launcher=ray", "train.generator.workers=2",
)  # fmt: skip
ROOT = "s3://reptok/runs"
DATA = ("web", "urls", "images", "captions", "dataset", "latents", "tokens")
WEIGHTS = ("tokenizer", "generator", "model")

OWN_FOLDERS = """
  head: &own
    environment: {RAY_worker_niceness: "0"}
    volumes: !override ["${REPTOK_SECRETS}/ray:/run/secrets/reptok:ro"]
    tmpfs:
      - /data:uid=10001,gid=10001,mode=0700,size=256m
      - /cache:uid=10001,gid=10001,mode=0700,size=4g
      - /ray:uid=10001,gid=10001,mode=0700,size=2g
  worker: *own
"""
"""What the machines of the compose file share, each has for itself; who restarts has lost it.

Ray's workers are nice by 15, which on a machine that is busy otherwise is next to nothing.
"""

MOTO = """
  s3:
    image: IMAGE
    entrypoint: [python, -c]
    command:
      - |
        import sys
        sys.path.append("/packages")
        from moto.server import main
        main(["-H", "0.0.0.0", "-p", "3900"])
    volumes: [{type: bind, source: PACKAGES, target: /packages, read_only: true}]
    tmpfs: ["/tmp:mode=1777,size=512m"]
    healthcheck: {test: [CMD, python, /app/docker/node.py, healthy, "http://127.0.0.1:3900/moto-api/"]}
  s3-setup:
    entrypoint: [python, -c]
    command:
      - "import urllib.request as r; r.urlopen(r.Request('http://s3:3900/reptok', method='PUT'))"
"""
"""moto's server, which the lock of tests has and the image has not, in the place of Garage."""

PRINT_FILES = """
import json, sys
from pipelines.dag.artifact import Artifact
from pipelines.dag.storage import open_folder
root, found = open_folder(sys.argv[1]), {}
for kind in root.children():
    there = [] if kind.startswith("_") else open_folder(root.url_of(kind)).children()
    for artifact in (Artifact(kind, name, root.url_of(kind + "/" + name)) for name in there):
        if artifact.published:
            files = {name: entry["sha256"] for name, entry in artifact.manifest["files"].items()}
            assert found.setdefault(kind, files) is files, f"two of {kind}"
print(json.dumps(found))
"""
WAIT_FOR_FILES = """
import json, re, sys, time
from pipelines.dag.storage import open_folder
kind, pattern, count, end = open_folder(sys.argv[1]), sys.argv[2], int(sys.argv[3]), time.monotonic() + 900
while time.monotonic() < end:
    names = [name for a in kind.children() for name in open_folder(kind.url_of(a)).sizes()]
    found = [name for name in names if re.search(pattern, name)]
    if len(found) >= count or "manifest.json" in names:
        sys.exit(print(json.dumps([] if "manifest.json" in names else found)))
    time.sleep(0.5)
"""
DONE, CHECKPOINT = "/shards/done/", r"/checkpoints/step-(\d+)[^/]*/state.json$"


@pytest.fixture(scope="module", params=["garage", "moto"])
def cluster(
    request: pytest.FixtureRequest, new_cluster: NewCluster, tmp_path_factory, clone: Path
) -> Cluster:
    folder = tmp_path_factory.mktemp("machines")
    services, variables = OWN_FOLDERS, {}
    if request.param == "moto":
        services += MOTO.replace("IMAGE", IMAGE).replace("PACKAGES", sysconfig.get_path("purelib"))
        variables = {"REPTOK_S3_REGION": "us-east-1"}
    (folder / "own.yaml").write_text(f"services:{services}")
    paths = json.dumps([str(clone / "docker/compose.yaml"), str(folder / "own.yaml")])
    (folder / "compose.yaml").write_text(
        f"name: reptok\ninclude: [{{path: {paths}, project_directory: {clone}}}]\n"
    )
    made = new_cluster(
        REPTOK_WORKERS="2", REPTOK_CPUS="2", COMPOSE_PROFILES="s3",
        COMPOSE_FILE=str(folder / "compose.yaml"), **variables,
    )  # fmt: skip
    if request.param == "garage":
        bases(made, "s3")
    made.up()
    wait_for(lambda: len(alive(made)) == 3, UP_SECONDS)
    return made


@pytest.fixture(scope="module")
def undisturbed(images: None) -> dict[str, dict[str, str]]:
    """The files of one machine that runs the workflow on its disk, without a network."""
    script = (
        'python pipelines/run_all.py "$@" root=/tmp/runs tracking=off 1>&2 && '
        f"python - /tmp/runs <<'END'\n{PRINT_FILES}\nEND"
    )
    machine = ["docker", "run", "--rm", "--network", "none", "--shm-size", "1g", "--memory", "8g", "--init",
               "--env", "RAY_worker_niceness=0"]  # fmt: skip
    shown = run([*machine, IMAGE, "bash", "-c", script, "workflow", *WORKLOAD], timeout=JOB_SECONDS)
    return chosen(json.loads(succeeded(shown)))


def chosen(found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The digests of data and weights by kind and file."""
    weights = {
        kind: {file: digest for file, digest in found[kind].items() if file.endswith(".safetensors")}
        for kind in WEIGHTS
    }
    assert all(weights.values())
    return {kind: found[kind] for kind in DATA} | weights


class Job:
    """The workflow as a job of the cluster, whose log is followed."""

    def __init__(self, cluster: Cluster, log: Path, root: str, *overrides: str) -> None:
        self.cluster, self.path, self.root = cluster, log, root
        run_all = ["python", "pipelines/run_all.py", *WORKLOAD, f"root={root}", *overrides]
        line = ["ray", "job", "submit", "--", *run_all]
        self.process = subprocess.Popen(
            ["docker", "compose", "exec", "-T", "head", *line],
            cwd=cluster.clone, env=cluster.environment, stdout=log.open("a"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    def cut_in_shards(self, stage: str, kind: str) -> None:
        """Cut off a machine that is at work, when some shards are done and others are not."""
        assert self._wait(kind, DONE, 2)
        self._cut(stage)

    def cut_in_training(self, stage: str, kind: str) -> None:
        """The same when there is a checkpoint; the training must go on from there."""
        names = self._wait(kind, CHECKPOINT, 1)
        newest, length = max(int(re.search(CHECKPOINT, name)[1]) for name in names), len(self.log())
        self._cut(stage)
        line = rf"{stage}: ([\d,]+) of [\d,]+ steps"
        wait_for(lambda: len(re.findall(line, self.log()[length:])) > 1 or self.ended, 900)
        steps = [int(step.replace(",", "")) for step in re.findall(line, self.log()[length:])]
        assert min(steps) >= newest > 0, f"{steps} after {newest}"

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def _wait(self, kind: str, pattern: str, count: int) -> list[str]:
        found = json.loads(python(self.cluster, WAIT_FOR_FILES, f"{self.root}/{kind}", pattern, str(count)))
        assert found, self.log()[-5000:]
        return found

    def _cut(self, stage: str) -> None:
        busy = [name for name in ("worker-2", "worker-1") if works(self.cluster, name)]
        assert busy and f"{stage}: done" not in self.log(), self.log()[-5000:]
        print(f"{stage}: ", end="")
        cut_link(self.cluster, busy[0])

    def log(self) -> str:
        return self.path.read_text()

    def finish(self) -> str:
        assert self.process.wait(timeout=JOB_SECONDS) == 0, self.log()[-8000:]
        return self.log()


def python(cluster: Cluster, script: str, *arguments: str) -> str:
    """What a script prints on the head."""
    return succeeded(
        cluster.compose("exec", "-T", "head", "python", "-c", script, *arguments, timeout=JOB_SECONDS)
    )


def files(cluster: Cluster, root: str) -> dict[str, dict[str, str]]:
    return json.loads(python(cluster, PRINT_FILES, root))


def test_nothing_is_shared_but_the_store(cluster):
    cluster.shell("worker", "echo mine > /data/mark; echo mine > /cache/mark; echo mine > /ray/mark", 1)
    for service, index in (("worker", 2), ("head", 1)):
        assert cluster.shell(service, "ls /data /cache /ray", index).count("mark") == 0


def test_a_machine_cut_off_in_the_download(cluster, undisturbed, tmp_path):
    root = "s3://reptok/download"
    job = Job(cluster, tmp_path / "log", root, "until=encode_latents")
    job.cut_in_shards("download", "images")
    job.finish()
    assert files(cluster, root) == {kind: undisturbed[kind] for kind in DATA[:-1]}


def test_a_machine_cut_off_in_encoding_and_in_each_training(cluster, undisturbed, tmp_path):
    job = Job(cluster, tmp_path / "log", ROOT)
    job.cut_in_shards("encode_latents", "latents")
    job.cut_in_training("train_tokenizer", "tokenizer")
    job.cut_in_training("train_generator", "generator")
    assert "publish: done" in job.finish()
    assert chosen(files(cluster, ROOT)) == undisturbed
    succeeded(cluster.submit("verify=true", f"root={ROOT}"))
    assert ": run (" not in succeeded(cluster.submit(*WORKLOAD, f"root={ROOT}"))
