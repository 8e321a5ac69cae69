"""The training loop: next batch, step, log, evaluate, checkpoint.

It knows no engine: `batches`, `log`, `save` and `evaluate` are callables, so the same loop runs under Ray
Train and over a list in a test.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

from reptok.training.config import TrainConfig
from reptok.training.norms import PREFIX as NORMS
from reptok.training.state import TrainState
from reptok.training.step import Begun, StepRandom

HISTORY_POINTS = 100
RETELL_SECONDS = 60.0
"""How long what was logged is kept at least: longer than it is on its way to the tracking server."""
WAIT = "wait_of_rank_"
WORTH_TELLING = 0.05  # of the time
Step = Callable[[Any, StepRandom, Mapping[str, float]], Begun]


def _nothing(step: int) -> Mapping[str, float]:
    return {}


def _never() -> bool:
    return False


@contextmanager
def rare_collection() -> Iterator[None]:
    """Collect garbage only where the loop says so: a pass at any other time stops one process, and so all."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@rare_collection()
def train(
    state: TrainState,
    step: Step,
    config: TrainConfig,
    *,
    batches: Callable[[int], Iterator[Any]],
    random: Callable[[int], StepRandom],
    log: Callable[[Mapping[str, float], int], None],
    save: Callable[[], None],
    evaluate: Callable[[int], Mapping[str, float]] = _nothing,
    gauge: Callable[[float], Mapping[str, float]] = lambda images_per_second: {},
    stop: Callable[[], bool] = _never,
    endangered: Callable[[], bool] = _never,
    watch: Callable[[int, str], None] = lambda step, phase: None,
    note: Callable[[str], None] = lambda line: None,
    rank: int = 0,
    world_size: int = 1,
) -> bool:
    """Train until `config.steps`, from wherever `state` stands.

    Several processes run it in lockstep. What a clock or a signal decides (to save, to stop) goes through
    the step as a request, so that all of them do it after the same step: the next one, as results are read
    while that computes. Only where curves get an entry, and before what looks at the weights, is the step
    itself waited for.

    Args:
        state: Weights and counters; a fresh or a loaded one.
        step: Begins to update the weights from a batch; gives scalars, granted requests among them.
        config: Length and rhythm.
        batches: Iterator of batches from a number of consumed samples on.
        random: A step's random numbers.
        log: Takes metrics ("train/...", "speed/...", "val/...") and the step.
        save: Makes a checkpoint of `state`.
        evaluate: Returns validation metrics; called with the step.
        gauge: Returns more metrics whenever the curves get an entry; called with the images per second.
        stop: Whether this process wants the training to end early, with a checkpoint.
        endangered: Whether a process may soon be gone, so that a checkpoint is due now; asked of all
            processes at the same steps, and all must get the same answer.
        watch: Told the step and what begins: "data", "step", "evaluation" or "checkpoint".
        note: Takes a line for the user: which process holds the others up.
        rank: This process.
        world_size: Number of processes.

    Returns:
        Whether the training is finished; False after a stop.
    """

    def record(values: Mapping[str, float], at: int) -> None:
        state.latest.update(values)
        state.recent.append((at, dict(values), time.time()))
        log(values, at)

    due = stopping = False

    def take(begun: Begun, at: int) -> None:
        nonlocal due, stopping
        values = begun.read()
        due, stopping = values.pop("save") > 0 or due, values.pop("stop") > 0 or stopping
        if norms := {name: values.pop(name) for name in list(values) if name.startswith(NORMS)}:
            record(norms, at)
        for name, value in {**values, "count": 1.0}.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        closes = at == config.steps or at % max(1, config.steps // HISTORY_POINTS) == 0
        trace(state, values, at, closes)

    for at, values, _ in state.recent:
        log(values, at)
    state.recent = [(at, values, time.time()) for at, values, _ in state.recent]  # told now, perhaps in vain
    earlier = state.step
    saved = since = time.monotonic()
    logged, waiting, stalled, warned = state.step, 0.0, 0.0, False
    before: Begun | None = None
    stream = batches(state.samples)
    while state.step < config.steps:
        watch(state.step, "data")
        asked = time.monotonic()
        batch = next(stream)
        wait = time.monotonic() - asked
        waiting += wait
        late = time.monotonic() - saved >= config.checkpoint_every_seconds
        waits = {f"{WAIT}{number}": wait * (number == rank) for number in range(world_size)}
        wishes = {"save": float(late), "stop": float(stop()), **waits}
        watch(state.step, "step")
        begun = step(batch, random(state.step), wishes)
        state.step += 1
        state.samples += config.batch_size
        due = stopping = False
        if before is not None:
            take(before, state.step - 1)
        last = state.step == config.steps
        logs = state.step % config.log_every == 0 or last
        evaluates = last or (config.eval_every > 0 and state.step % config.eval_every == 0)
        before = begun
        if logs or evaluates or due or stopping:
            take(begun, state.step)
            before = None
        if logs:
            elapsed, steps = max(time.monotonic() - since, 1e-9), state.step - logged
            speed = speeds(steps * config.batch_size, elapsed, waiting, stalled)
            if line := straggler(state.sums, elapsed):
                note(line)
            record({**means(state.sums), **speed, **gauge(speed["speed/images_per_second"])}, state.step)
            state.sums.clear()
            since, logged, waiting, stalled = time.monotonic(), state.step, 0.0, 0.0
            if endangered() and not warned:
                due = warned = True
            gc.collect()
        if evaluates:
            watch(state.step, "evaluation")
            began = time.monotonic()
            record(evaluate(state.step), state.step)
            since += time.monotonic() - began
        if last or due or stopping:
            watch(state.step, "checkpoint")
            began = time.monotonic()
            save()
            young = time.time() - RETELL_SECONDS
            state.recent = [entry for entry in state.recent if entry[0] > earlier or entry[2] > young]
            earlier = state.step
            saved = time.monotonic()
            stalled += saved - began
        if stopping and not last:
            return False
    return True


def trace(state: TrainState, values: Mapping[str, float], step: int, close: bool) -> None:
    """Take a step's loss into the history; `close` ends a point of it."""
    if not values.get("skipped"):
        state.pending.append(values["loss"])
    if close and state.pending:
        mean = sum(state.pending) / len(state.pending)
        state.history.append({"step": step, "train/loss": mean})
        state.pending.clear()


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Turn sums over some steps into "train/{name}" means.

    "train/loss_segment_{k}" is the mean over the samples whose times fell into segment k; "train/skipped"
    counts the steps left out.
    """
    skipped = sums.get("skipped", 0.0)
    count = max(sums["count"] - skipped, 1.0)
    found = {"train/skipped": skipped}
    for name, value in sums.items():
        if name.startswith("segment_count_") and value > 0:
            k = name.rpartition("_")[2]
            found[f"train/loss_segment_{k}"] = sums[f"segment_sum_{k}"] / value
        elif not name.startswith(("segment_", WAIT)) and name not in ("count", "skipped"):
            found[f"train/{name}"] = value / count
    return found


def straggler(sums: Mapping[str, float], seconds: float) -> str | None:
    """Name the process that waited for its data, and all others for it; None where none stands out.

    Args:
        sums: Seconds of waiting, "wait_of_rank_{k}", over some steps.
        seconds: What these steps took.
    """
    waits = {name.removeprefix(WAIT): value for name, value in sums.items() if name.startswith(WAIT)}
    if len(waits) < 2:
        return None
    rank = max(waits, key=lambda number: waits[number])
    worst = waits.pop(rank)
    usual = median(waits.values())
    if worst < WORTH_TELLING * seconds or worst < 2 * usual:
        return None
    return (
        f"rank {rank} waited {worst:.1f} of {seconds:.1f} s for its data, the others {usual:.1f} s: "
        "its machine reads or decodes more slowly"
    )


def speeds(samples: int, seconds: float, waiting: float, stalled: float) -> dict[str, float]:
    """Return images per second, and the shares of time spent waiting for data and for checkpoints."""
    return {
        "speed/images_per_second": samples / seconds,
        "data/wait_fraction": min(1.0, waiting / seconds),
        "speed/checkpoint_fraction": min(1.0, stalled / seconds),
    }
