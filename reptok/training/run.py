"""One process of a training, from its description to the finished model, in the order in which it happens.

{folder}/training.json     the description, where the launcher wrote one
{folder}/checkpoints/      see `checkpoint`
{folder}/kept/             see `kept`
{folder}/profile/          see `profiling`
{folder}/stop              while it exists, the training saves itself and leaves
{folder}/failure.json      see `failure`
{folder}/finished/         model/; curves.json, the end of the curves; last result.json, the last metrics
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from reptok.attention import preferred, stated
from reptok.data.stream import Batches
from reptok.throughput import matmul_speed, mfu
from reptok.training.ahead import one_ahead
from reptok.training.capture import CapturedStep
from reptok.training.checkpoint import CHECKPOINTS, Checkpointer
from reptok.training.config import ProfileConfig, TrainConfig
from reptok.training.curves import WORK
from reptok.training.failure import FAILURE
from reptok.training.kept import gather, keep
from reptok.training.log import TrainLog
from reptok.training.loop import train
from reptok.training.norms import LayerNorms
from reptok.training.parallel import Alone, parallelize
from reptok.training.place import Place, peak_memory_bytes, raise_file_limit
from reptok.training.preview import draw_together
from reptok.training.profiling import Profiler
from reptok.training.scores import score_together
from reptok.training.shared import Shared
from reptok.training.state import TrainState
from reptok.training.step import Begun, StepRandom, TrainStep, products_in
from reptok.training.task import Task, Training
from reptok.training.validation import validate
from reptok.training.watch import Watch

FINISHED, STOP = "finished", "stop"
RESULT, CURVES = "result.json", "curves.json"
STOP_POLL_SECONDS, STORE_POLL_SECONDS = 1.0, 10.0


def run(training: Training, place: Place, folder: Path, log: TrainLog) -> bool:
    """Train to the end, or to where it is asked to stop, from the newest checkpoint if any.

    Args:
        training: What to train.
        place: This process among those that train together.
        folder: Where checkpoints and the result go; all processes see it, or what it shares (see `shared`).
        log: Takes curves, pictures and progress, from rank 0.

    Returns:
        Whether the training is finished; False after a stop, or where an attempt before this one failed in a
        way that would come again.
    """
    config, first, shared = training.train, place.rank == 0, Shared.of(folder)

    # What is trained: the same in every process, since all draw their initial weights from one seed.
    torch.set_num_threads(config.threads)
    raise_file_limit()
    torch.manual_seed(config.seed)
    task = training.build(place.device)

    # Divided among the processes.
    norms = LayerNorms(task.objective, config.norms_every) if config.norms_every else None
    parallel = parallelize(
        task.objective, config.strategy, world_size=place.world_size, shards=config.shards,
        device=place.device, compile=config.compile, compile_mode=config.compile_mode,
        recompute=config.recompute, precision=config.precision,
    )  # fmt: skip

    if parallel.agreed(int(shared.exists(FAILURE))):
        return False

    # How far it is: at its beginning, or at the newest checkpoint.
    state = TrainState(task.objective, config.optim, config.ema_decay)
    checkpoints = Checkpointer(
        folder / CHECKPOINTS, state, parallel, config.keep_checkpoints, shared.below(CHECKPOINTS)
    )
    checkpoints.load_newest()

    # What a step reads, and what it does.
    batches = Batches(
        task.data, config.batch_size, config.seed, flip=config.flip, rank=place.rank,
        world_size=place.world_size, window=config.window, readers=config.threads,
        pin=place.device.type == "cuda", columns=task.columns,
    )  # fmt: skip
    kind = CapturedStep if config.cuda_graphs else TrainStep
    step = kind(
        parallel, state, config.optim, config.steps, precision=config.precision, device=place.device,
        accumulate=config.accumulate, max_skipped=config.max_skipped, norms=norms,
    )  # fmt: skip
    begun = False

    def train_step(batch: Any, random: StepRandom, requests: Mapping[str, float]) -> Begun:
        nonlocal begun
        work = {
            f"{WORK}{rank}": step.clock.seconds * (rank == place.rank) for rank in range(place.world_size)
        }
        running = step(batch, random, {**requests, **work})
        if not begun:  # and compiled
            begun = True
            parallel.in_step(config.step_timeout_seconds)
        return running

    def stream(position: int) -> Iterator[Any]:
        read = batches.stream(position)
        if place.device.type == "cpu" or (prepare := task.prepare) is None:
            return read
        return one_ahead(read, lambda batch: prepare(batch, place.device), place.device)

    # What is told of it, and when it is looked at and saved.
    def report(values: Mapping[str, float], at: int) -> None:
        if first:
            log.metrics(values, at)
            log.progress(at, config.steps)

    def evaluate(at: int) -> Mapping[str, float]:
        return look(task, config, parallel, state, place, log, at)

    def keep_weights(at: int) -> None:
        with parallel.patient(), parallel.averaged(state.ema) as averaged:
            if averaged is not None:
                keep(task.weights(averaged), at, shared)

    def save() -> None:
        with parallel.patient():
            checkpoints.save()

    def write(averaged: Any, model: Path) -> None:
        task.save(averaged, model)
        if config.keep_every:
            gather(shared, model, state.step)

    if first:
        if kernels := stated(place.device):
            log.note(kernels)
        log.progress(state.step, config.steps)
        for note in (*task.notes, *batches.notes):
            log.note(note)
    watch = Watch(place.rank, place.world_size, config.step_timeout_seconds / 2, log.note)
    profiler = Profiler(config.profile if first else ProfileConfig(), folder / "profile", place.device, log)

    here = _Poll(lambda: first and stop_file(folder).exists(), STOP_POLL_SECONDS)
    elsewhere = _Poll(lambda: first and bool(shared.url) and shared.sees(STOP), STORE_POLL_SECONDS)

    def asked() -> bool:
        return here() or elsewhere()

    def follow(at: int, phase: str) -> None:
        watch(at, phase)
        if phase == "data":
            profiler.at(at)

    # The loop.
    task.objective.train()
    with preferred(place.device):
        finished = train(
            state,
            train_step,
            config,
            batches=stream,
            random=lambda at: StepRandom(config.seed, at, config.batch_size, batches.mine, place.device),
            log=report,
            save=save,
            evaluate=evaluate,
            keep=keep_weights,
            gauge=gauge(task, config, state, place),
            stop=asked,
            preempted=place.preempted,
            watch=follow,
            note=log.note if first else lambda line: None,
            rank=place.rank,
            world_size=place.world_size,
        )

    # The end: the last checkpoint is on the disk, and the averaged weights are the model.
    watch.close()
    profiler.close()
    checkpoints.wait()
    if finished:
        with parallel.patient(), parallel.averaged(state.ema) as averaged:
            if averaged is not None:
                leave(finished_folder(folder), lambda model: write(averaged, model), state)
                shared.push(FINISHED, last=RESULT)
    log.flush()
    return finished


def look(
    task: Task,
    config: TrainConfig,
    parallel: Alone,
    state: TrainState,
    place: Place,
    log: TrainLog,
    step: int,
) -> Mapping[str, float]:
    """Return the validation losses and scores of the averaged weights, and log what they draw."""
    if task.validation is None:
        return {}
    with parallel.patient():
        losses = validate(
            parallel, state.ema, task.validation, samples=config.eval_samples, batch_size=config.batch_size,
            precision=config.precision, device=place.device,
        )  # fmt: skip
        figures: Mapping[str, float] = {}
        if task.scores and config.score_samples:
            scores, share = task.scores(config.score_samples), max(1, config.batch_size // place.world_size)
            with parallel.evaluating(state.ema) as objective, products_in(config.precision, place.device):
                figures = score_together(scores, objective, parallel, share)
        if preview := task.preview(step):
            with parallel.evaluating(state.ema) as objective, products_in(config.precision, place.device):
                grid = draw_together(preview, objective, parallel)
            if place.rank == 0:
                log.grid(grid, step)
    return {**losses, **figures}


def gauge(
    task: Task, config: TrainConfig, state: TrainState, place: Place
) -> Callable[[float], Mapping[str, float]]:
    """Return what finds memory and utilisation of the device from the images per second."""
    cost = task.flops_per_image
    ceiling = matmul_speed(place.device, config.precision) if place.rank == 0 and cost else 0.0

    def measure(images_per_second: float) -> Mapping[str, float]:
        values = {"speed/peak_memory_gib": peak_memory_bytes(place.device) / 2**30}
        if cost and ceiling:
            values["speed/mfu"] = mfu(images_per_second, cost(state.step), ceiling, place.world_size)
        return values

    return measure


def finished_folder(folder: Path) -> Path:
    """Where a training leaves its result."""
    return folder / FINISHED


def stop_file(folder: Path) -> Path:
    """While this file exists, the training saves itself and leaves."""
    return folder / STOP


def leave(finished: Path, save: Callable[[Path], None], state: TrainState) -> None:
    """Write the model, and last, whole, what says that it is finished."""
    save(finished / "model")
    (finished / "model" / "history.json").write_text(json.dumps(state.history))
    (finished / CURVES).write_text(json.dumps(state.recent))
    (finished / "unfinished.json").write_text(json.dumps(state.latest))
    (finished / "unfinished.json").rename(finished / RESULT)


class _Poll:
    """A question that is asked about every so many seconds, however often it is put."""

    def __init__(self, question: Callable[[], bool], seconds: float):
        self._question, self._seconds, self._next = question, seconds, 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._next:
            return False
        self._next = time.monotonic() + self._seconds
        return self._question()
