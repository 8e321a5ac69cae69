"""The Ray cluster: joined if there is one to join, else started on this machine when first needed."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from pipelines.dag import processes
from pipelines.dag.metrics import board
from pipelines.dag.session_folder import SessionFolder

REPOSITORY = Path(__file__).resolve().parents[2]
START_ATTEMPTS = 3
# Linux ends Ray's processes with the thread that started them, and a stage's thread ends with its stage.
_keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Where stages run.

    Attributes:
        address: of a running Ray cluster; None joins `RAY_ADDRESS` if that is set, else starts a local Ray.
        num_cpus: CPUs of the local Ray, or share of the joined cluster that stages may fill; None means all.
        num_gpus: GPUs, likewise.
        object_store_bytes: shared memory of the local Ray; blocks hold descriptors, so little is needed.
    """

    address: str | None = None
    num_cpus: Annotated[float, Gt(0)] | None = None
    num_gpus: Annotated[float, Ge(0)] = 0.0
    object_store_bytes: Annotated[int, Ge(80 * 2**20)] = 256 * 2**20

    @property
    def joins(self) -> str | None:
        """Address of the cluster that would be joined, None if a local one would be started."""
        return self.address or os.environ.get("RAY_ADDRESS") or None

    def capacity(self) -> tuple[float, float]:
        """CPUs and GPUs that stages may occupy together."""
        everything = float("inf") if self.joins else float(os.cpu_count() or 1)
        cpus = everything if self.num_cpus is None else self.num_cpus
        return cpus, (float("inf") if self.joins and not self.num_gpus else self.num_gpus)


CLOSED = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's word for: this machine is all, listen on loopback alone
    "RAY_AUTH_MODE": "token",  # and of its users, only who has this run's token
    "RAY_enable_metrics_collection": "0",  # metrics ask for no token
    "AUTOSCALER_METRIC_PORT": "-1",  # no such port: these two have no switch
    "DASHBOARD_METRIC_PORT": "-1",
}
"""Environment of a local Ray, which nobody but this run may talk to."""

_config = ClusterConfig()
_lock = threading.Lock()
_ours = False
_session: SessionFolder | None = None
_token = secrets.token_hex(32)


def configure(config: ClusterConfig) -> None:
    """Say which cluster `ensure` joins or starts."""
    global _config
    _config = config


def is_local() -> bool:
    """Whether Ray is one of this machine, for this run alone."""
    return _config.joins is None


def at_hand() -> bool:
    """Whether there is a Ray already: connected to, or to be joined."""
    if _config.joins is not None:
        return True
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def ensure() -> None:
    """Connect this process to Ray, unless it is connected."""
    global _ours
    with _lock:
        _prepare_environment()
        import ray

        if not ray.is_initialized():
            _keeper.submit(_init).result()
            _quieten()
            _ours = True
        board.publish()


def shutdown() -> None:
    """Leave the cluster that `ensure` joined or started; a local one ends with all its processes."""
    global _ours, _session
    with _lock:
        if _ours:
            import ray

            board.flush()
            ray.shutdown()
            _ours = False
        if _session:
            _session.remove()
            _session = None


def _prepare_environment() -> None:
    """What Ray reads when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its core writes into the user's terminal
    if _config.joins is None:
        os.environ |= CLOSED | {"RAY_AUTH_TOKEN": _token}


def _init() -> None:
    import ray

    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address := _config.joins:
        print(f"joining the Ray cluster at {address}", flush=True)
        submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        environment = None if submitted else {"env_vars": {"PYTHONPATH": _python_path()}}
        ray.init(address=address, runtime_env=environment, **common)
        return
    _start(common)


def _start(common: dict[str, Any]) -> None:
    """Start a Ray of this machine that nobody else can reach."""
    global _session
    import ray

    print("starting a local Ray", flush=True)
    # Whoever imported Ray before us had it read another environment.
    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
    ray._raylet.Config.initialize("")
    _session = _session or SessionFolder()
    before = set(processes.children())
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            # Workers inherit it; by way of a runtime environment every one of them would start Python twice.
            with _environment(PYTHONPATH=processes.import_path(), PYTHONSAFEPATH="1"):
                ray.init(
                    address="local",
                    num_cpus=None if _config.num_cpus is None else int(_config.num_cpus),
                    num_gpus=int(_config.num_gpus),
                    object_store_memory=_config.object_store_bytes,
                    include_dashboard=False,
                    job_config=ray.job_config.JobConfig(_client_job=True),  # else they import from our cwd
                    _temp_dir=str(_session.path),
                    _plasma_directory=_shared_memory(_session.path),
                    **common,
                )
            return
        except Exception as error:  # Ray raises a bare Exception when a busy machine takes more than 30 s
            ray.shutdown()
            processes.end([process for process in processes.children() if process not in before])
            if attempt == START_ATTEMPTS or "timed out" not in str(error):
                raise
            print("the local Ray was not ready in time; starting it again", flush=True)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables of this process while a child is started."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _shared_memory(otherwise: Path) -> str | None:
    """Where Ray keeps blocks: None, its own choice, if /dev/shm is writable and large enough."""
    shared = "/dev/shm"
    if os.access(shared, os.W_OK | os.X_OK):
        found = os.statvfs(shared)
        if found.f_bavail * found.f_frsize > _config.object_store_bytes:
            return None
    if sys.platform == "linux":
        print(f"note: {shared} is too small or not writable; Ray's blocks lie in {otherwise}", flush=True)
    return str(otherwise)


def _python_path() -> str:
    """Where workers find this project, whatever their working folder."""
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def _quieten() -> None:
    """Ray Data draws bars and logs of its own; ours say what a user wants to know."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
