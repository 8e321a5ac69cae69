"""The training loop: next batch, step, log, evaluate, checkpoint.

It knows no engine: `batches`, `log`, `save` and `evaluate` are callables, so the same loop runs under any
launcher and over a list in a test.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from reptok.training.config import TrainConfig
from reptok.training.curves import WAIT, Curves
from reptok.training.state import TrainState
from reptok.training.step import Begun, StepRandom

REQUESTS = ("save", "stop")
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
    keep: Callable[[int], None] = lambda step: None,
    gauge: Callable[[float], Mapping[str, float]] = lambda images_per_second: {},
    stop: Callable[[], bool] = _never,
    preempted: Callable[[], bool] = _never,
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
        keep: Writes the weights of a step that are to stay; called with the step.
        gauge: Returns more metrics whenever the curves get an entry; called with the images per second.
        stop: Whether this process wants the training to end early, with a checkpoint.
        preempted: Whether a machine is about to be taken away, so that a checkpoint is due now; asked of all
            processes at the same steps, and all must get the same answer.
        watch: Told the step and what begins: "data", "step", "evaluation" or "checkpoint".
        note: Takes a line for the user: which process holds the others up.
        rank: This process.
        world_size: Number of processes.

    Returns:
        Whether the training is finished; False after a stop.
    """
    curves = Curves(state, config, log)

    def read(begun: Begun, at: int) -> set[str]:
        """Take a step's results into the curves; return what the processes ask for."""
        values = begun.read()
        asked = {name for name in REQUESTS if values.pop(name) > 0}
        curves.add(values, at)
        return asked

    unread: Begun | None = None
    saved, warned = time.monotonic(), False
    stream = batches(state.samples)
    while state.step < config.steps:
        # The next batch.
        watch(state.step, "data")
        with curves.reading():
            batch = next(stream)

        # The step begins on the device, and what the one before it found is read.
        watch(state.step, "step")
        late = time.monotonic() - saved >= config.checkpoint_every_seconds
        waits = {f"{WAIT}{number}": curves.wait * (number == rank) for number in range(world_size)}
        begun = step(batch, random(state.step), {"save": float(late), "stop": float(stop()), **waits})
        state.step += 1
        state.samples += config.batch_size
        asked = read(unread, state.step - 1) if unread is not None else set()
        unread = begun

        last = state.step == config.steps
        logs = last or state.step % config.log_every == 0
        evaluates = last or (config.eval_every > 0 and state.step % config.eval_every == 0)
        keeps = not last and config.keep_every > 0 and state.step % config.keep_every == 0
        if logs or evaluates or keeps or asked:
            asked |= read(begun, state.step)
            unread = None

        # An entry of the curves.
        if logs:
            curves.entry(gauge, note)
            if preempted() and not warned:
                asked.add("save")
                warned = True
            gc.collect()

        # A validation.
        if evaluates:
            watch(state.step, "evaluation")
            with curves.evaluating():
                curves.record(evaluate(state.step), state.step)

        # Weights that stay; before a checkpoint, from which a resumed training would not come by here again.
        if keeps:
            watch(state.step, "checkpoint")
            with curves.evaluating():
                keep(state.step)

        # A checkpoint.
        if last or asked:
            watch(state.step, "checkpoint")
            with curves.saving():
                save()
            saved = time.monotonic()

        if "stop" in asked and not last:
            return False
    return True
