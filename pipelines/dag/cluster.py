"""The Ray cluster: joined if there is one to join, else started on this machine when first needed."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dag import processes
from pipelines.dag.metrics import board

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
    num_cpus: float | None = None
    num_gpus: float = 0.0
    object_store_bytes: int = 256 * 2**20

    @property
    def joins(self) -> str | None:
        """Address of the cluster that would be joined, None if a local one would be started."""
        return self.address or os.environ.get("RAY_ADDRESS") or None

    def capacity(self) -> tuple[float, float]:
        """CPUs and GPUs that stages may occupy together."""
        everything = float("inf") if self.joins else float(os.cpu_count() or 1)
        cpus = everything if self.num_cpus is None else self.num_cpus
        return cpus, (float("inf") if self.joins and not self.num_gpus else self.num_gpus)


_config = ClusterConfig()
_lock = threading.Lock()
_ours = False


def configure(config: ClusterConfig) -> None:
    """Say which cluster `ensure` joins or starts."""
    global _config
    _config = config


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
    global _ours
    with _lock:
        if _ours:
            import ray

            board.flush()
            ray.shutdown()
            _ours = False


def _prepare_environment() -> None:
    """What Ray reads when it is imported."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # else its core writes into the user's terminal
    starts = _config.joins is None and "ray" not in sys.modules
    if starts and "RAY_AUTH_MODE" not in os.environ:
        # Ray listens on every interface: only processes of this run may talk to it.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _init() -> None:
    import ray

    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address := _config.joins:
        print(f"joining the Ray cluster at {address}", flush=True)
        submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        environment = None if submitted else {"env_vars": {"PYTHONPATH": _python_path()}}
        ray.init(address=address, runtime_env=environment, **common)
        return
    print("starting a local Ray", flush=True)
    # Workers inherit this; by way of a runtime environment every one of them would start Python twice.
    os.environ["PYTHONPATH"] = _python_path()
    before = set(processes.children())
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=None if _config.num_cpus is None else int(_config.num_cpus),
                num_gpus=int(_config.num_gpus),
                object_store_memory=_config.object_store_bytes,
                include_dashboard=False,
                **common,
            )
            return
        except Exception as error:  # Ray raises a bare Exception when a busy machine takes more than 30 s
            ray.shutdown()
            processes.end([process for process in processes.children() if process not in before])
            if attempt == START_ATTEMPTS or "timed out" not in str(error):
                raise
            print("the local Ray was not ready in time; starting it again", flush=True)


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
