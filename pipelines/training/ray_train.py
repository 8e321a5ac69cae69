"""Start the processes of a training on a cluster, by Ray Train, and start them again when one dies."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.dag import cluster
from pipelines.dag.stage import Workspace
from pipelines.dag.storage import LocalFolder
from pipelines.training.log_queue import log_queue
from pipelines.training.placement import reported_anew
from pipelines.training.scratch import share_scratch
from reptok.training.checkpoint import CHECKPOINTS, finished
from reptok.training.config import PATIENT_SECONDS, TrainConfig
from reptok.training.failure import FAILURE, written_down
from reptok.training.place import Place
from reptok.training.run import run, stop_file
from reptok.training.task import Training

HOUR = 3600.0

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


def ray_train(training: Training, out: Workspace) -> None:
    """Train in `training.train.workers` processes of a cluster, and wait for them.

    When one dies, all begin again at the newest checkpoint. Machines may be taken away with a warning any
    number of times; other deaths may come `training.train.max_failures_per_hour` times an hour, for as long
    as the training gets further. What would come again ends it at once (see `reptok.training.failure`).

    Args:
        training: What to train.
        out: The stage's workspace; checkpoints and the result go to its scratch.

    Raises:
        ray.train.TrainingFailedError: The training failed too often.
    """
    start(_worker, {"training": training, "workspace": out}, training.train, out)


def start(
    worker: Callable[[dict[str, Any]], None], given: Mapping[str, Any], config: TrainConfig, out: Workspace
) -> None:
    """Run `worker` in every process of a Ray Train run; called with `given` and a "log"."""
    cluster.ensure()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from pipelines.training.rendezvous import PrivateTorchConfig

    resources = {"CPU": config.threads, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})}
    elastic = (config.min_workers, config.workers) if config.min_workers else config.workers
    with log_queue(out.log) as log:
        trainer = TorchTrainer(
            worker,
            train_loop_config={**given, "log": log},
            torch_config=PrivateTorchConfig(timeout_s=int(PATIENT_SECONDS)),
            scaling_config=ScalingConfig(
                num_workers=elastic,
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=out.fingerprint,
                **_storage(out),
                failure_config=FailureConfig(
                    max_failures=config.max_failures_per_hour, max_preemption_failures=-1
                ),
                logging_config=LoggingConfig(log_level="WARNING"),
                worker_runtime_env={"env_vars": flight_recorder(out)} if config.gpus_per_worker else None,
            ),
        )
        with reported_anew():
            _fit(trainer.fit, out)


def _storage(out: Workspace) -> dict[str, Any]:
    """Where Ray Train keeps its own notes: where all machines see them."""
    if isinstance(out.folder, LocalFolder):
        return {"storage_path": str(out.scratch / "ray_train")}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    store, path = fsspec.core.url_to_fs(f"{out.scratch_url}/ray_train")
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(store))}


def _fit(fit: Callable[[], object], out: Workspace, clock: Callable[[], float] = time.monotonic) -> None:
    """Fit, and again after an hour's failures if they took more than an hour and the training got further."""
    from ray.train import TrainingFailedError

    while True:
        begun, before = clock(), _newest_step(out)
        try:
            fit()
            return
        except TrainingFailedError:
            if share_scratch(out).sees(FAILURE):
                return  # whoever launched it says what it was
            if clock() - begun < HOUR or _newest_step(out) <= before:
                raise
            print(
                f"  workers died again and again, but it got to step {_newest_step(out)}: it goes on",
                flush=True,
            )


def _newest_step(out: Workspace) -> int:
    """Step of the newest checkpoint, -1 without one."""
    names = finished(share_scratch(out).below(CHECKPOINTS))
    return int(names[0].split("-")[1]) if names else -1


def _worker(given: dict[str, Any]) -> None:
    """Train as one of Ray Train's workers.

    Ray Train is told of no checkpoint: it would resume from the last one that it registered, which after a
    kill need not be the last that is whole.
    """
    import ray
    import ray.train.torch

    context = ray.train.get_context()
    place = Place(
        context.get_world_rank(),
        context.get_world_size(),
        ray.train.torch.get_device(),
        _preempted if len(ray.nodes()) > 1 else lambda: False,
    )
    shared = share_scratch(given["workspace"])
    folder = shared.folder
    if shared.url:  # that of the machine that launched it counts
        stop_file(folder).unlink(missing_ok=True)
    with written_down(folder):
        run(given["training"], place, folder, given["log"])


def _preempted() -> bool:
    """Whether a machine of this training is about to be taken away; all workers must ask together."""
    import ray.train

    return ray.train.get_preemption_info() is not None
