"""Start the processes of a training under Ray Train, and start them again when one dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

from pipelines.dag import cluster
from pipelines.dag.interruption import saving_when_asked
from pipelines.dag.stage import Workspace
from pipelines.training.process import RESULT, finished_folder, stop_file
from pipelines.training.relay import direct, relay
from reptok.training.config import PATIENT_SECONDS, TrainConfig

MAX_FAILURES = 3

ENVIRONMENT = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Ray Train's own figures go nowhere here, and a finished worker should not wait two seconds to be
noticed."""


def flight_recorder(out: Workspace) -> dict[str, str]:
    """The environment in which NCCL keeps its last collectives, and writes them down when one gives up.

    To be set before a process joins its group; `torch.distributed.flight_recorder` reads the files.
    """
    return {
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_FR_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": str(out.scratch / "flight_recorder_rank_"),
    }


class Stopped(SystemExit):
    """The training was asked to end, and left a checkpoint to go on from."""


def fit(
    worker: Callable[[dict[str, Any]], None], settings: Mapping[str, Any], config: TrainConfig, out: Workspace
) -> None:
    """Run `worker` in every process of a Ray Train run, and again from its newest checkpoint when one dies.

    Processes that die cost one of `MAX_FAILURES` restarts; those whose machine was taken away with a warning
    cost none. Interrupting the program lets the training save itself first.

    Args:
        worker: The training loop of one process; called with `settings` and "log", a `RelayLog`.
        settings: Artifacts, configs and the workspace; whatever the workers need.
        config: Says how many processes there are, and their threads and GPUs.
        out: The stage's workspace.

    Raises:
        ray.train.TrainingFailedError: The training failed again after `MAX_FAILURES` restarts.
        Stopped: The program is being interrupted.
    """
    cluster.ensure()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.training.rendezvous import PrivateTorchConfig

    resources = {"CPU": config.threads, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})}
    elastic = (config.min_workers, config.workers) if config.min_workers else config.workers
    stop = stop_file(out)
    stop.unlink(missing_ok=True)
    opened = relay(out.log) if config.workers else nullcontext(direct(out.log))
    with saving_when_asked(stop.touch), opened as log:
        TorchTrainer(
            worker,
            train_loop_config={**settings, "log": log},
            torch_config=PrivateTorchConfig(timeout_s=int(PATIENT_SECONDS)),
            scaling_config=ScalingConfig(
                num_workers=elastic,  # 0 is Ray Train's local mode
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=out.fingerprint,
                storage_path=str(out.scratch / "ray_train"),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                logging_config=LoggingConfig(log_level="WARNING"),
                worker_runtime_env={"env_vars": flight_recorder(out)} if config.gpus_per_worker else None,
            ),
        ).fit()
    if not (finished_folder(out) / RESULT).exists():
        raise Stopped("the training has saved itself; the same command goes on")
