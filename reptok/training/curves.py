"""What a training tells of itself while it goes on: means over steps, speed, waiting, who holds up whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from reptok.training.config import TrainConfig
from reptok.training.norms import PREFIX as NORMS
from reptok.training.scores import ONLINE
from reptok.training.state import TrainState

HISTORY_POINTS = 100
RETELL_SECONDS = 60.0
"""How long what was logged is kept at least: longer than it is on its way to the tracking server."""
WAIT, WORK = "wait_of_rank_", "work_of_rank_"
"""Requests by which processes tell each other how long they waited for data, and computed."""
WORTH_TELLING = 0.05  # of the time


class Curves:
    """The curves of one training, kept in its state so that a resumed one has no gap.

    Attributes:
        wait: Seconds that this process waited for its last batch.
    """

    def __init__(
        self, state: TrainState, config: TrainConfig, log: Callable[[Mapping[str, float], int], None]
    ):
        """Go on with the curves of `state`, and tell again what a kill may have lost on its way to `log`."""
        self._state, self._config, self._log = state, config, log
        for at, values, _ in state.recent:
            log(values, at)
        state.recent = [(at, values, time.time()) for at, values, _ in state.recent]  # perhaps in vain
        self.wait = 0.0
        self._kept = self._logged = state.step
        self._since = time.monotonic()
        self._waiting = self._stalled = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Surround the wait for a batch."""
        began = time.monotonic()
        yield
        self.wait = time.monotonic() - began
        self._waiting += self.wait

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Surround what is no training and shall not count against its speed."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Surround a checkpoint; what was logged before the last one need not be told again."""
        began = time.monotonic()
        yield
        self._stalled += time.monotonic() - began
        young = time.time() - RETELL_SECONDS
        recent = self._state.recent
        self._state.recent = [entry for entry in recent if entry[0] > self._kept or entry[2] > young]
        self._kept = self._state.step

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Take a step's results; norms of layers are logged at once."""
        state, steps = self._state, self._config.steps
        if norms := {name: value for name, value in values.items() if name.startswith(NORMS)}:
            self.record(norms, step)
        counted = {name: value for name, value in values.items() if name not in norms}
        for name, value in {**counted, "count": 1.0}.items():
            state.sums[name] = state.sums.get(name, 0.0) + value
        closes = step == steps or step % max(1, steps // HISTORY_POINTS) == 0
        trace(state, values, step, closes)

    def record(self, values: Mapping[str, float], step: int) -> None:
        """Log values of a step; scores on the way stand in the history, too."""
        if online := {name: value for name, value in values.items() if name.startswith(ONLINE)}:
            self._state.history.append({"step": step, **online})
        self._state.latest.update(values)
        self._state.recent.append((step, dict(values), time.time()))
        self._log(values, step)

    def entry(self, gauge: Callable[[float], Mapping[str, float]], note: Callable[[str], None]) -> None:
        """Log the means since the last entry, and the speed.

        Args:
            gauge: Returns more metrics from the images per second.
            note: Takes the line that names a process which holds the others up.
        """
        state = self._state
        elapsed = max(time.monotonic() - self._since, 1e-9)
        samples = (state.step - self._logged) * self._config.batch_size
        speed = speeds(samples, elapsed, self._waiting, self._stalled)
        if line := straggler(state.sums, elapsed):
            note(line)
        found = {**means(state.sums), **speed, **gauge(speed["speed/images_per_second"])}
        self.record(found, state.step)
        state.sums.clear()
        self._logged, self._since = state.step, time.monotonic()
        self._waiting = self._stalled = 0.0


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
        elif not name.startswith(("segment_", WAIT, WORK)) and name not in ("count", "skipped"):
            found[f"train/{name}"] = value / count
    return found


def straggler(sums: Mapping[str, float], seconds: float) -> str | None:
    """Name the process that all others wait for; None where none stands out.

    Args:
        sums: Seconds over some steps of waiting for data, "wait_of_rank_{k}", and of forward passes,
            "work_of_rank_{k}".
        seconds: What these steps took.
    """
    if found := _outlier(sums, WAIT, seconds):
        rank, worst, usual = found
        if worst >= 2 * usual:
            return (
                f"rank {rank} waited {worst:.1f} of {seconds:.1f} s for its data, the others {usual:.1f} s: "
                "its machine reads or decodes more slowly"
            )
    if found := _outlier(sums, WORK, seconds):
        rank, worst, usual = found
        return (
            f"rank {rank} computed its forward passes in {worst:.1f} of {seconds:.1f} s, the others in "
            f"{usual:.1f} s: its device is slower, hot or shared"
        )
    return None


def _outlier(sums: Mapping[str, float], kind: str, seconds: float) -> tuple[str, float, float] | None:
    """The rank with the largest sum of a kind, that sum and the others' median, where it costs time."""
    own = {name.removeprefix(kind): value for name, value in sums.items() if name.startswith(kind)}
    if len(own) < 2:
        return None
    rank = max(own, key=lambda number: own[number])
    worst = own.pop(rank)
    usual = median(own.values())
    return (rank, worst, usual) if worst - usual >= WORTH_TELLING * seconds else None


def speeds(samples: int, seconds: float, waiting: float, stalled: float) -> dict[str, float]:
    """Return images per second, and the shares of time spent waiting for data and for checkpoints."""
    return {
        "speed/images_per_second": samples / seconds,
        "data/wait_fraction": min(1.0, waiting / seconds),
        "speed/checkpoint_fraction": min(1.0, stalled / seconds),
    }
