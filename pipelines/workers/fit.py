"""The Ray Train glue of both trainings: start workers, divide the data, train, log, checkpoint, resume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pipelines.dag import cluster
from pipelines.dag.stage import Workspace
from pipelines.workers.relay import RelayLog, direct, relay
from reptok.data.loader import Batches, Readable
from reptok.training.checkpoint import load_newest, save_checkpoint
from reptok.training.config import TrainConfig
from reptok.training.loop import train
from reptok.training.state import TrainState
from reptok.training.step import StepRandom, TrainStep
from reptok.training.validation import segment_losses

MAX_FAILURES = 3
RESULT = "result.json"
VALIDATION_SEED = 1 << 20

ENVIRONMENT = {
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}
"""Ray Train's own figures go nowhere here, and a finished worker should not wait two seconds to be
noticed."""


@dataclass(frozen=True)
class Member:
    """This process among those of a training.

    Attributes:
        rank: In [0, world_size).
        world_size: Number of processes.
        device: Where this process computes.
    """

    rank: int
    world_size: int
    device: torch.device


def fit(
    worker: Callable[[dict[str, Any]], None], settings: Mapping[str, Any], config: TrainConfig, out: Workspace
) -> None:
    """Run `worker` in every process of a Ray Train run, and again from its newest checkpoint when one dies.

    Args:
        worker: The training loop of one process; called with `settings` and "log", a `RelayLog`.
        settings: Artifacts, configs and the workspace; whatever the workers need.
        config: Says how many processes there are, and their threads and GPUs.
        out: The stage's workspace.

    Raises:
        ray.train.TrainingFailedError: The training failed again after `MAX_FAILURES` restarts.
    """
    cluster.ensure()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": config.threads, **({"GPU": config.gpus_per_worker} if config.gpus_per_worker else {})}
    with relay(out.log) if config.workers else nullcontext(direct(out.log)) as log:
        TorchTrainer(
            worker,
            train_loop_config={**settings, "log": log},
            scaling_config=ScalingConfig(
                num_workers=config.workers,  # 0 is Ray Train's local mode
                use_gpu=config.gpus_per_worker > 0,
                resources_per_worker=resources,
            ),
            run_config=RunConfig(
                name=out.fingerprint,
                storage_path=str(out.scratch / "ray_train"),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                logging_config=LoggingConfig(log_level="WARNING"),
            ),
        ).fit()


def join(config: TrainConfig) -> Member:
    """Set this worker up: threads, device, and the seed of the initial weights."""
    import ray.train
    import ray.train.torch

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    context = ray.train.get_context()
    return Member(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())


def run(
    member: Member,
    objective: nn.Module,
    config: TrainConfig,
    data: Readable[Any],
    validation: Readable[Any] | None,
    out: Workspace,
    log: RelayLog,
    save: Callable[[Path], None],
    show: Callable[[int], None] | None = None,
) -> None:
    """Train an objective to the end, from the newest checkpoint where there is one.

    Args:
        member: This process.
        objective: Called with (batch, random), already on the device; its trainable parameters are what is
            trained.
        config: Length and rhythm.
        data: The training split.
        validation: The validation split, if there is one.
        out: The stage's workspace; checkpoints and the result go to its scratch, which all ranks see.
        log: Takes curves and progress, from rank 0.
        save: Writes the finished model, with its averaged weights, into a folder.
        show: Logs pictures of the averaged model at a step.
    """
    folder = out.scratch / "checkpoints"
    if config.compile:
        compile_blocks(objective)
    state = TrainState(objective, config.optim, config.ema_decay)
    load_newest(folder, state)
    _check_agreement(member, state.step)
    first = member.rank == 0
    if first:
        log.progress(state.step, config.steps)
    callable_objective: nn.Module = objective
    if member.world_size > 1:
        callable_objective = DistributedDataParallel(objective, broadcast_buffers=False)
    batches = Batches(
        data, config.batch_size, config.seed, flip=config.flip, rank=member.rank,
        world_size=member.world_size, window=config.window,
    )  # fmt: skip
    step = TrainStep(
        callable_objective, state, config.optim, config.steps,
        precision=config.precision, device=member.device,
    )  # fmt: skip

    def evaluate(at: int) -> Mapping[str, float]:
        if not first or validation is None:
            return {}
        objective.eval()
        with state.ema.applied():
            values = segment_losses(
                objective,
                _validation_batches(validation, config),
                lambda number, size: StepRandom(VALIDATION_SEED, number, size, slice(size), member.device),
            )
            if show is not None:
                show(at)
        objective.train()
        return values

    def report(values: Mapping[str, float], at: int) -> None:
        if first:
            log.metrics(values, at)
            log.progress(at, config.steps)

    def checkpoint() -> None:
        if first:
            save_checkpoint(folder, state)

    objective.train()
    train(
        state,
        step,
        config,
        batches=batches.stream,
        random=lambda at: StepRandom(config.seed, at, config.batch_size, batches.mine, member.device),
        log=report,
        save=checkpoint,
        evaluate=evaluate,
    )
    if first:
        finished = finished_folder(out)
        with state.ema.applied():
            save(finished / "model")
        (finished / "model" / "history.json").write_text(json.dumps(state.history))
        (finished / RESULT).write_text(json.dumps(state.latest))


def compile_blocks(model: nn.Module) -> None:
    """Compile every block of the model's stacks on its own: one short compilation serves all of a stack."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            for block in stack:
                block.compile()


def finished_folder(out: Workspace) -> Path:
    """Where a training leaves its result for the stage to publish: `model/`, then `result.json`."""
    return out.scratch / "finished"


def _validation_batches(data: Readable[Any], config: TrainConfig) -> Iterator[tuple[Any, int]]:
    """Read the first `eval_samples` samples in storage order, none mirrored."""
    samples = np.arange(min(sum(data.rows), config.eval_samples))
    for start in range(0, len(samples), config.batch_size):
        part = samples[start : start + config.batch_size]
        yield data.read(part, np.zeros(len(part), bool)), len(part)


def _check_agreement(member: Member, step: int) -> None:
    """All ranks must have found the same checkpoint."""
    if member.world_size > 1:
        steps: list[Any] = [None] * member.world_size
        torch.distributed.all_gather_object(steps, step)
        if len(set(steps)) > 1:
            raise RuntimeError(
                f"the training workers found different checkpoints (steps {steps}): the artifact root must "
                "be a folder that all machines share"
            )
