"""The training loop: next batch, step, log, evaluate, checkpoint.

It knows no engine: `batches`, `log`, `save` and `evaluate` are callables, so the same loop runs under Ray
Train and over a list in a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reptok.training.config import TrainConfig
from reptok.training.state import TrainState
from reptok.training.step import StepRandom

HISTORY_POINTS = 100


def _no_evaluation(step: int) -> Mapping[str, float]:
    return {}


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
