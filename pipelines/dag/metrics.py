"""What a run tells Prometheus, through the endpoint that every node of a Ray cluster has.

All metrics stand in `TABLE`; Ray puts `ray_` before their names and `_total` behind those of counters.
Labels come from closed sets, so that no web server's answer and no file name can multiply the series. Three
habits of Ray shape this file (2.60, measured): a gauge that is not set again is gone after half a minute,
and one set to NaN never arrives, so a thread sets them all every few seconds and a counter tells of
non-finite values; a counter cannot be increased by 0, so it has no series before its first event. Without
Ray nothing happens.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

TICK_SECONDS = 5.0  # Ray collects every 10 s
STATES = ("waiting", "running", "done", "skipped", "failed", "blocked")
DROP_CAUSES = ("queue_full", "server_away")
OTHER = "other"


@dataclass(frozen=True)
class Metric:
    """One row of the table.

    Attributes:
        name: as given to Ray.
        kind: counters only grow; gauges are positions.
        unit: of its values.
        labels: names of its labels; each takes its values from a closed set.
        help: what it is.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    labels: tuple[str, ...]
    help: str

    @property
    def exported(self) -> str:
        """The name under which Prometheus finds it."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


_STAGE = ("stage",)
TABLE = {
    metric.name: metric
    for metric in (
        Metric("reptok_rows_read", "counter", "rows", _STAGE, "Rows that finished shards have read"),
        Metric("reptok_rows_kept", "counter", "rows", _STAGE, "Rows of these with no reason against them"),
        Metric("reptok_rows_dropped", "counter", "rows", ("stage", "reason"), "Rows of these with a reason"),
        Metric("reptok_written_bytes", "counter", "bytes", _STAGE, "Bytes of the files of finished shards"),
        Metric("reptok_stage_state", "gauge", "0 or 1", ("stage", "state"), "1 for the state a stage is in"),
        Metric("reptok_progress_done", "gauge", "rows or steps", _STAGE, "How far a running stage is"),
        Metric("reptok_progress_expected", "gauge", "rows or steps", _STAGE, "How far it will go"),
        Metric("reptok_progress_age_seconds", "gauge", "seconds", _STAGE, "Time since it last got further"),
        Metric("reptok_training_step", "gauge", "steps", _STAGE, "Step of the last entry of the curves"),
        Metric("reptok_training_loss", "gauge", "1", _STAGE, "Its loss, if finite"),
        Metric("reptok_training_images_per_second", "gauge", "images/s", _STAGE, "Since the last entry"),
        Metric("reptok_training_mfu", "gauge", "fraction", _STAGE, "Share of the measured matmul speed"),
        Metric("reptok_training_data_wait", "gauge", "fraction", _STAGE, "Share of time that waits for data"),
        Metric("reptok_nonfinite", "counter", "events", _STAGE, "Steps left out, and values not finite"),
        Metric(
            "reptok_tracking_dropped", "counter", "records", ("cause",), "Records that MLflow did not get"
        ),
    )
}  # fmt: skip
TRAINING = {
    "train/loss": "reptok_training_loss",
    "speed/images_per_second": "reptok_training_images_per_second",
    "speed/mfu": "reptok_training_mfu",
    "data/wait_fraction": "reptok_training_data_wait",
}
_OF_A_RUNNING_STAGE = frozenset(TRAINING.values()) | {
    "reptok_training_step", "reptok_progress_done", "reptok_progress_expected", "reptok_progress_age_seconds"
}  # fmt: skip

Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels."""


class Board:
    """The latest gauges, and counts that wait to be added to Ray's counters."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages: frozenset[str] = frozenset()
        self._gauges: dict[Series, float] = {}
        self._counts: dict[Series, float] = {}
        self._moved: dict[str, float] = {}  # stage -> when it last got further
        self._made: dict[str, Any] = {}
        self._thread: threading.Thread | None = None
        self._warned = False

    def begin(self, stages: Iterable[str]) -> None:
        """Say which stages there are; what any other name tells counts as one, `other`."""
        with self._lock:
            self._stages = frozenset(stages)
            self._gauges.clear()
            self._moved.clear()
        for stage in self._stages:
            self.state(stage, "waiting")

    def state(self, stage: str, state: str) -> None:
        """Tell what has become of a stage; one of `STATES`."""
        stage = self._known(stage)
        with self._lock:
            for name in STATES:
                self._gauges["reptok_stage_state", (stage, name)] = float(name == state)
            if state == "running":
                self._moved[stage] = time.monotonic()
            else:
                self._moved.pop(stage, None)
                for series in [s for s in self._gauges if s[0] in _OF_A_RUNNING_STAGE and s[1] == (stage,)]:
                    del self._gauges[series]

    def progress(self, stage: str, done: float, expected: float) -> None:
        """Tell how far a running stage is; its age counts from the last time that `done` changed."""
        stage = self._known(stage)
        with self._lock:
            if self._gauges.get(("reptok_progress_done", (stage,))) != done:
                self._moved[stage] = time.monotonic()
            self._gauges["reptok_progress_done", (stage,)] = float(done)
            self._gauges["reptok_progress_expected", (stage,)] = float(expected)

    def rows(
        self, stage: str, stats: Mapping[str, float], size: float = 0, reasons: Collection[str] = ()
    ) -> None:
        """Count rows by their fate.

        Args:
            stage: whose.
            stats: `rows_in`, `rows_out`, `dropped_<reason>` and `failed_<reason>` (such rows stay, marked).
            size: bytes written.
            reasons: the words that may become labels; HTTP's three-digit ones as classes, `http_4xx`.
        """
        stage = self._known(stage)
        failed = sum(value for key, value in stats.items() if key.startswith("failed_"))
        self._count("reptok_rows_read", (stage,), stats.get("rows_in", 0))
        self._count("reptok_rows_kept", (stage,), stats.get("rows_out", 0) - failed)
        self._count("reptok_written_bytes", (stage,), size)
        for key, value in stats.items():
            fate, _, word = key.partition("_")
            if fate in ("dropped", "failed"):
                word = re.sub(r"\A(http_[1-5])\d\d\Z", r"\1xx", word)
                self._count("reptok_rows_dropped", (stage, word if word in reasons else OTHER), value)

    def curves(self, stage: str, values: Mapping[str, float], step: int | None) -> None:
        """Take from an entry of a stage's curves what is a metric; count what is not finite."""
        stage = self._known(stage)
        bad = sum(not math.isfinite(value) for value in values.values())
        skipped = values.get("train/skipped", 0.0)
        self._count("reptok_nonfinite", (stage,), bad + (skipped if math.isfinite(skipped) else 0))
        with self._lock:
            for key, name in TRAINING.items():
                if math.isfinite(values.get(key, math.nan)):
                    self._gauges[name, (stage,)] = float(values[key])
            if step is not None and "train/loss" in values:
                self._gauges["reptok_training_step", (stage,)] = float(step)

    def tracking_dropped(self, cause: str, records: int = 1) -> None:
        """Count records that the tracking server did not get; the cause is one of `DROP_CAUSES`."""
        self._count("reptok_tracking_dropped", (cause,), records)

    def publish(self) -> None:
        """Hand everything to Ray every few seconds from now on, while this process is connected."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, name="metrics", daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Hand everything to Ray now, before this process leaves it."""
        try:
            self._send()
        except Exception as error:  # figures are not worth a run
            if not self._warned:
                print(f"warning: Ray does not take the metrics, the work goes on ({error})", flush=True)
            self._warned = True

    def snapshot(self) -> dict[Series, float]:
        """The gauges as they would be sent now."""
        now = time.monotonic()
        with self._lock:
            ages = {("reptok_progress_age_seconds", (stage,)): now - at for stage, at in self._moved.items()}
            return self._gauges | ages

    def _known(self, stage: str) -> str:
        return stage if stage in self._stages else OTHER

    def _count(self, name: str, labels: tuple[str, ...], value: float) -> None:
        if value > 0:
            with self._lock:
                self._counts[name, labels] = self._counts.get((name, labels), 0.0) + value

    def _tick(self) -> None:
        while True:
            self.flush()
            time.sleep(TICK_SECONDS)

    def _send(self) -> None:
        ray = sys.modules.get("ray")
        if ray is None or not ray.is_initialized():
            return
        gauges = self.snapshot()
        with self._lock:
            counts, self._counts = self._counts, {}
            for (name, labels), value in gauges.items():
                self._metric(name).set(value, _tags(name, labels))
            for (name, labels), value in counts.items():
                self._metric(name).inc(value, _tags(name, labels))

    def _metric(self, name: str) -> Any:
        if name not in self._made:
            from ray.util.metrics import Counter, Gauge

            metric = TABLE[name]
            kind = Counter if metric.kind == "counter" else Gauge
            self._made[name] = kind(name, f"{metric.help} ({metric.unit})", metric.labels)
        return self._made[name]


def _tags(name: str, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(TABLE[name].labels, values, strict=True))


board = Board()
"""Of this process; a run's driver is the one that tells."""
