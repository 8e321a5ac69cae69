"""What a Ray container runs: `node.py head | worker | gpu-worker`, and `node.py healthy URL...`.

The head holds no CPUs: what computes runs on workers, and the cluster counts each CPU of the machine once.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import socket
import sys
import urllib.request
from pathlib import Path

PORTS = {
    "node-manager-port": 6380, "object-manager-port": 6381, "runtime-env-agent-port": 6382,
    "dashboard-agent-grpc-port": 6383, "dashboard-agent-listen-port": 52365, "metrics-export-port": 8080,
    "min-worker-port": 10002, "max-worker-port": 10100,
}  # fmt: skip


def cpu_share(role: str, total: int, workers: int, gpu_worker: bool) -> int:
    """CPUs that a node of this role tells Ray of; over all nodes they sum up to `total` at most.

    Args:
        role: "head", "worker" or "gpu-worker".
        total: CPUs that the cluster may use, at least 1.
        workers: Number of "worker" nodes.
        gpu_worker: Whether a GPU worker runs beside them; it takes half.
    """
    of_gpu_worker = max(1, total // 2) if gpu_worker else 0
    return {"head": 0, "worker": (total - of_gpu_worker) // workers, "gpu-worker": of_gpu_worker}[role]


def resolves(name: str) -> bool:
    """Whether a service of this name runs in our network."""
    try:
        return bool(socket.getaddrinfo(name, None))
    except OSError:
        return False


def session_folder(parent: Path, name: str) -> Path:
    """Make this container's folder for Ray's sessions and remove those of containers that are gone.

    The lock that says "alive" is held by a descriptor that the Ray process inherits and its end releases.
    """
    with (parent / ".lock").open("w") as everyone:
        fcntl.flock(everyone, fcntl.LOCK_EX)
        for other in parent.iterdir():
            if other.is_dir() and not _held(other / ".alive"):
                shutil.rmtree(other)
        folder = parent / name
        folder.mkdir()
        alive = os.open(folder / ".alive", os.O_CREAT | os.O_RDWR)
        fcntl.flock(alive, fcntl.LOCK_EX)
        os.set_inheritable(alive, True)
    return folder


def _held(lock: Path) -> bool:
    try:
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def raise_open_files() -> None:
    """Allow as many open files as the engine does: a memory map holds one each, shells start with 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def credentials(home: Path, secrets: Path) -> None:
    """Put MLflow's credentials where its client looks for them."""
    link = home / ".mlflow" / "credentials"
    link.parent.mkdir(exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(secrets / "mlflow-credentials")


def ray_command(role: str, folder: Path) -> list[str]:
    """The `ray start` of this role."""
    machine = os.cpu_count() or 1
    total = min(int(os.environ.get("REPTOK_CPUS") or machine), machine)
    workers = int(os.environ.get("REPTOK_WORKERS") or 1)
    cpus = cpu_share(role, total, workers, role == "gpu-worker" or resolves("gpu-worker"))
    options = {
        "num-cpus": cpus,
        "object-store-memory": os.environ["REPTOK_OBJECT_STORE_BYTES"],
        "temp-dir": folder,
        **PORTS,
    }
    head = ["--head", "--no-monitor", "--port=6379", "--dashboard-host=0.0.0.0"]
    place = head if role == "head" else ["--address=head:6379"]
    return ["ray", "start", "--block", *place, *(f"--{key}={value}" for key, value in options.items())]


def main(arguments: list[str]) -> None:
    """Become Ray, or ask whether it is healthy."""
    if arguments[0] == "healthy":
        for url in arguments[1:]:
            urllib.request.urlopen(url, timeout=5).close()
        return
    (role,) = arguments
    raise_open_files()
    credentials(Path.home(), Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent)
    folder = session_folder(Path(os.environ["REPTOK_RAY_FOLDER"]), socket.gethostname())
    command = ray_command(role, folder)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
