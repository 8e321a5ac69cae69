"""What a Ray container runs: `node.py head | worker | gpu-worker`, and `node.py healthy URL...`.

The head holds no CPUs: what computes runs on workers, and the cluster counts each CPU of the machine once.
"""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

PORTS = {
    "node-manager-port": 6380, "object-manager-port": 6381, "runtime-env-agent-port": 6382,
    "dashboard-agent-grpc-port": 6383, "dashboard-agent-listen-port": 52365, "metrics-export-port": 8080,
    "min-worker-port": 10002, "max-worker-port": 10100,
}  # fmt: skip

STARTS, START_SECONDS = 3, 120.0
"""So often a start is tried; what ends later than that had started."""


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


def run_ray(command: list[str]) -> int:
    """Run Ray until it ends, and return its exit status.

    Ray allows itself half a minute to start, which a busy machine exceeds. A start that fails is tried again
    here: for `docker compose up --wait` a container that ends has failed, whatever its restart policy does.
    """
    told_to_stop = False
    process: subprocess.Popen[bytes] | None = None

    def stop(number: int, _: object) -> None:
        nonlocal told_to_stop
        told_to_stop = True
        if process is not None:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    status = 0
    for attempt in range(STARTS):
        begun = time.monotonic()
        process = subprocess.Popen(command, close_fds=False)  # Ray holds the session folder's lock, too
        if told_to_stop:  # while it started
            process.terminate()
        status = process.wait()
        if told_to_stop or status == 0 or time.monotonic() - begun > START_SECONDS or attempt == STARTS - 1:
            break
        print(f"Ray ended with {status} while it started; starting it again", flush=True)
    return status if status >= 0 else 128 - status


def main(arguments: list[str]) -> None:
    """Run Ray, or ask whether it is healthy."""
    if arguments[0] == "healthy":
        for url in arguments[1:]:
            urllib.request.urlopen(url, timeout=5).close()
        return
    (role,) = arguments
    raise_open_files()
    credentials(Path.home(), Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent)
    folder = session_folder(Path(os.environ["REPTOK_RAY_FOLDER"]), socket.gethostname())
    sys.exit(run_ray(ray_command(role, folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
