"""The training loop: next batch, step, log, evaluate, checkpoint.

It knows no engine: `batches`, `log`, `save` and `evaluate` are callables, so the same loop runs under Ray
Train and over a list in a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from reptok.training.optim import OptimConfig
from reptok.training.state import TrainState
from reptok.training.step import Precision, StepRandom, TimeSampling

_FREE = {"significant": False}


def _no_evaluation(step: int) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    Fields whose metadata says `significant: False` may change between a run and its resumption. The number
    of workers is among them: a sum over ranks rounds differently (about 1e-6), but every sample and every
    random number stays the same.

    Attributes:
        steps: Updates in all.
        batch_size: Samples of a step over all workers.
        optim: Optimiser and schedule.
        ema_decay: Of the averaged weights, which are the ones published.
        seed: Of order, mirroring, noise, times and dropout.
        time_sampling: Distribution of t; the authors train the decoder with logit-normal, the generator
            with uniform times.
        precision: "float32", or "bfloat16" matrix products.
        flip: Mirror a random half of the samples.
        compile: Compile the network's blocks (torch.compile); pays on a GPU.
        log_every: Steps between two entries of the curves.
        eval_every: Steps between two validations; 0 for none but the last.
        eval_samples: Validation samples that the validation loss is computed on.
        checkpoint_every_seconds: Time between two checkpoints.
        workers: Training processes; 0 trains in the driver's process, which saves their start (half a minute)
            and the restart of a process that dies.
        threads: CPUs, and CPU threads, of each process.
        gpus_per_worker: GPUs of each process.
        cache_images_bytes: Keep decoded images in memory when all of them fit.
        window: Smallest number of samples shuffled together.
    """

    steps: int
    batch_size: int
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema_decay: float = 0.9999
    seed: int = 0
    time_sampling: TimeSampling = "uniform"
    precision: Precision = "float32"
    flip: bool = True
    compile: bool = field(default=False, metadata=_FREE)
    log_every: int = field(default=50, metadata=_FREE)
    eval_every: int = field(default=1000, metadata=_FREE)
    eval_samples: int = field(default=512, metadata=_FREE)
    checkpoint_every_seconds: float = field(default=600.0, metadata=_FREE)
    workers: int = field(default=1, metadata=_FREE)
    threads: int = field(default=1, metadata=_FREE)
    gpus_per_worker: float = field(default=0.0, metadata=_FREE)
    cache_images_bytes: int = field(default=1 << 30, metadata=_FREE)
    window: int = 10_000

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.threads < 1 or self.workers < 0:
            raise ValueError("train.steps, train.batch_size and train.threads must be at least 1, workers 0")


HISTORY_POINTS = 100


def train(
    state: TrainState,
    step: Callable[[Any, StepRandom], dict[str, float]],
    config: TrainConfig,
    *,
    batches: Callable[[int], Iterator[Any]],
    random: Callable[[int], StepRandom],
    log: Callable[[Mapping[str, float], int], None],
    save: Callable[[], None],
    evaluate: Callable[[int], Mapping[str, float]] = _no_evaluation,
) -> None:
    """Train until `config.steps`, from wherever `state` stands.

    Args:
        state: Weights and counters; a fresh or a loaded one.
        step: Updates the weights from a batch and returns scalars.
        config: Length and rhythm.
        batches: Iterator of batches from a number of consumed samples on.
        random: A step's random numbers.
        log: Takes metrics ("train/...", "speed/...", "val/...") and the step.
        save: Makes a checkpoint of `state`.
        evaluate: Returns validation metrics; called with the step.
    """

    def record(values: Mapping[str, float]) -> None:
        state.latest.update(values)
        log(values, state.step)

    saved = since = time.monotonic()
    logged, waiting = state.step, 0.0
    stream = batches(state.samples)
    while state.step < config.steps:
        asked = time.monotonic()
        batch = next(stream)
        waiting += time.monotonic() - asked
        values = step(batch, random(state.step))
        state.step += 1
        state.samples += config.batch_size
        for name, value in {**values, "count": 1.0}.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        last = state.step == config.steps
        trace(state, values, last or state.step % max(1, config.steps // HISTORY_POINTS) == 0)
        if state.step % config.log_every == 0 or last:
            elapsed, steps = max(time.monotonic() - since, 1e-9), state.step - logged
            record({**means(state.sums), **speeds(steps * config.batch_size, elapsed, waiting)})
            state.sums.clear()
            since, logged, waiting = time.monotonic(), state.step, 0.0
        if last or (config.eval_every and state.step % config.eval_every == 0):
            began = time.monotonic()
            record(evaluate(state.step))
            since += time.monotonic() - began
        if last or time.monotonic() - saved >= config.checkpoint_every_seconds:
            save()
            saved = time.monotonic()


def trace(state: TrainState, values: Mapping[str, float], close: bool) -> None:
    """Take a step's loss into the history; `close` ends a point of it."""
    if not values.get("skipped"):
        state.pending.append(values["loss"])
    if close and state.pending:
        mean = sum(state.pending) / len(state.pending)
        state.history.append({"step": state.step, "train/loss": mean})
        state.pending.clear()


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Turn sums over some steps into "train/{name}" means; "train/skipped" counts the steps left out."""
    skipped = sums.get("skipped", 0.0)
    count = max(sums["count"] - skipped, 1.0)
    found = {
        f"train/{name}": value / count for name, value in sums.items() if name not in ("count", "skipped")
    }
    return {**found, "train/skipped": skipped}


def speeds(samples: int, seconds: float, waiting: float) -> dict[str, float]:
    """Return images per second and the share of time spent waiting for data."""
    return {"speed/images_per_second": samples / seconds, "data/wait_fraction": min(1.0, waiting / seconds)}
