"""One process of a training: its place among the others, the loop, checkpoints, evaluation, the result."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.dag.stage import Workspace
from pipelines.training.relay import RelayLog
from reptok.data.loader import Batches, Readable
from reptok.throughput import matmul_speed, mfu
from reptok.training.checkpoint import Checkpointer
from reptok.training.config import TrainConfig
from reptok.training.loop import train
from reptok.training.norms import LayerNorms
from reptok.training.parallel import parallelize
from reptok.training.profiling import Profiler
from reptok.training.state import TrainState
from reptok.training.step import Begun, StepRandom, TrainStep
from reptok.training.validation import segment_losses
from reptok.training.watch import Watch

RESULT, CURVES = "result.json", "curves.json"
VALIDATION_SEED = 1 << 20
STOP_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Member:
    """This process among those of a training.

    Attributes:
        rank: In [0, world_size).
        world_size: Number of processes.
        device: Where this process computes.
        preemptible: Whether machines may be taken away with a warning (a cluster of several).
        report: Tells Ray Train the last metrics, for its own record of the run. It is not told of
            checkpoints: it would resume from the last one that it registered, which after a kill need not
            be the last that is whole.
    """

    rank: int
    world_size: int
    device: torch.device
    preemptible: bool = False
    report: Callable[[dict[str, float]], None] = lambda values: None


def join(config: TrainConfig) -> Member:
    """Set this worker up: threads, device, and the seed of the initial weights."""
    import ray
    import ray.train
    import ray.train.torch

    torch.set_num_threads(config.threads)
    raise_file_limit()
    torch.manual_seed(config.seed)
    context = ray.train.get_context()
    preemptible = config.workers > 0 and len(ray.nodes()) > 1
    device = ray.train.torch.get_device()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    return Member(rank, world_size, device, preemptible, ray.train.report)


def run(
    member: Member,
    objective: nn.Module,
    config: TrainConfig,
    data: Readable[Any],
    validation: Readable[Any] | None,
    out: Workspace,
    log: RelayLog,
    save: Callable[[Any, Path], None],
    show: Callable[[Any, int], None] | None = None,
    flops_per_image: Callable[[int], float] | None = None,
) -> None:
    """Train an objective to the end, or to where it is asked to stop, from the newest checkpoint if any.

    Args:
        member: This process.
        objective: Called with (batch, random), already on the device; its trainable parameters are what is
            trained.
        config: Length and rhythm.
        data: The training split.
        validation: The validation split, if there is one.
        out: The stage's workspace; checkpoints and the result go to its scratch, which all ranks see.
        log: Takes curves and progress, from rank 0.
        save: Writes the finished model into a folder; called with the objective with averaged weights.
        show: Logs pictures of such an objective at a step.
        flops_per_image: What a step costs, forward and backward, for the utilisation of the device.
    """
    norms = LayerNorms(objective, config.norms_every) if config.norms_every else None
    parallel = parallelize(
        objective, config.strategy, world_size=member.world_size, device=member.device,
        compile=config.compile, compile_mode=config.compile_mode, recompute=config.recompute,
        precision=config.precision,
    )  # fmt: skip
    state = TrainState(objective, config.optim, config.ema_decay)
    checkpoints = Checkpointer(out.scratch / "checkpoints", state, parallel, config.keep_checkpoints)
    checkpoints.load_newest()
    first = member.rank == 0
    batches = Batches(
        data, config.batch_size, config.seed, flip=config.flip, rank=member.rank,
        world_size=member.world_size, window=config.window, readers=config.threads,
        pin=member.device.type == "cuda",
    )  # fmt: skip
    step = TrainStep(
        parallel, state, config.optim, config.steps, precision=config.precision, device=member.device,
        accumulate=config.accumulate, max_skipped=config.max_skipped, norms=norms,
    )  # fmt: skip

    def evaluate(at: int) -> Mapping[str, float]:
        values: Mapping[str, float] = {}
        with parallel.patient(), parallel.averaged(state.ema) as averaged:
            if averaged is not None and validation is not None:
                values = segment_losses(
                    averaged,
                    _validation_batches(validation, config),
                    lambda number, size: StepRandom(
                        VALIDATION_SEED, number, size, slice(0, size), member.device
                    ),
                )
                if show is not None:
                    show(averaged, at)
        return values

    def report(values: Mapping[str, float], at: int) -> None:
        if first:
            log.metrics(values, at)
            log.progress(at, config.steps)

    begun = False

    def save_checkpoint() -> None:
        with parallel.patient():
            checkpoints.save()

    def train_step(batch: Any, random: StepRandom, requests: Mapping[str, float]) -> Begun:
        nonlocal begun
        running = step(batch, random, requests)
        if not begun:  # and compiled
            begun = True
            parallel.in_step(config.step_timeout_seconds)
        return running

    profiler = Profiler(config.profile, out.scratch / "profile", member.device, log.file) if first else None
    watch = Watch(member.rank, member.world_size, config.step_timeout_seconds / 2, log.note)
    ceiling = matmul_speed(member.device, config.precision) if first and flops_per_image else 0.0

    def follow(at: int, phase: str) -> None:
        watch(at, phase)
        if profiler is not None and phase == "data":
            profiler.at(at)

    def gauge(images_per_second: float) -> Mapping[str, float]:
        values = {"speed/peak_memory_gib": peak_memory_bytes(member.device) / 2**30}
        if flops_per_image and ceiling:
            cost = flops_per_image(state.step)
            values["speed/mfu"] = mfu(images_per_second, cost, ceiling, member.world_size)
        return values

    if first:
        log.progress(state.step, config.steps)
        for note in batches.notes:
            log.note(note)
    objective.train()
    finished = train(
        state,
        train_step,
        config,
        batches=batches.stream,
        random=lambda at: StepRandom(config.seed, at, config.batch_size, batches.mine, member.device),
        log=report,
        save=save_checkpoint,
        evaluate=evaluate,
        gauge=gauge,
        stop=_Poll(lambda: first and stop_file(out).exists()),
        endangered=_preempted if member.preemptible else lambda: False,
        watch=follow,
        note=(lambda line: log.note(line)) if first else (lambda line: None),
        rank=member.rank,
        world_size=member.world_size,
    )
    watch.close()
    if profiler is not None:
        profiler.close()
    checkpoints.wait()
    if finished:
        with parallel.patient(), parallel.averaged(state.ema) as averaged:
            if averaged is not None:
                folder = finished_folder(out)
                save(averaged, folder / "model")
                (folder / "model" / "history.json").write_text(json.dumps(state.history))
                (folder / CURVES).write_text(json.dumps(state.recent))
                (folder / "unfinished.json").write_text(json.dumps(state.latest))
                (folder / "unfinished.json").rename(folder / RESULT)  # last, and whole
        member.report(state.latest)
    log.flush()


def raise_file_limit() -> None:
    """Let this process open as many files as it may: the loader maps thousands of shards, 1,024 is usual."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def finished_folder(out: Workspace) -> Path:
    """Where a training leaves its result for the stage to publish.

    `model/`; the end of the curves, for a stage that finds the training finished; last `result.json`.
    """
    return out.scratch / "finished"


def stop_file(out: Workspace) -> Path:
    """While this file exists, the training saves itself and leaves."""
    return out.scratch / "stop"


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: on the GPU if it uses one, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Poll:
    """A question that is asked about once a second, however often it is put."""

    def __init__(self, question: Callable[[], bool]):
        self._question, self._next = question, 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + STOP_POLL_SECONDS
        return self._question()


def _preempted() -> bool:
    """Whether a machine of this training is about to be taken away; all workers must ask together."""
    import ray.train

    return ray.train.get_preemption_info() is not None


def _validation_batches(data: Readable[Any], config: TrainConfig) -> Iterator[tuple[Any, int]]:
    """Read the first `eval_samples` samples in storage order, none mirrored."""
    samples = np.arange(min(sum(data.rows), config.eval_samples))
    for start in range(0, len(samples), config.batch_size):
        part = samples[start : start + config.batch_size]
        yield data.read(part, np.zeros(len(part), bool)), len(part)
