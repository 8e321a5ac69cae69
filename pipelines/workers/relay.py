"""The way from a training worker to the stage's log: a queue that the driver empties.

The worker needs no tracking client (whose import costs seconds), no tracking address and no credentials,
and it never waits for the server.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from pipelines.dag.tracking import StageLog

POLL_SECONDS = 0.5


class RelayLog:
    """What a worker logs to; as picklable as the callable that takes its messages."""

    def __init__(self, send: Callable[[tuple[Any, ...]], None]):
        self._send = send

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record scalars of a step."""
        if values:
            self._send(("metrics", dict(values), step))

    def progress(self, done: int, total: int) -> None:
        """Tell how far the training is."""
        self._send(("progress", done, total))

    def grid(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[np.ndarray]], step: int
    ) -> None:
        """Record a table of pictures, uint8 (H, W, 3) each, which the driver draws."""
        self._send(("grid", name, list(columns), [list(row) for row in rows], step))


@contextmanager
def relay(log: StageLog) -> Iterator[RelayLog]:
    """Pass on to `log` what workers write into the given `RelayLog`, until the block ends."""
    from ray.util.queue import Empty, Queue

    queue = Queue(actor_options={"num_cpus": 0})
    ended = threading.Event()

    def forward() -> None:
        while True:
            last = ended.is_set()
            try:
                while True:
                    _write(log, queue.get_nowait())
            except Empty:
                pass
            except Exception as error:  # the cluster is going down: fit() reports it
                print(f"  the training's log ended early: {error}", flush=True)
                return
            if last:
                return
            ended.wait(POLL_SECONDS)

    thread = threading.Thread(target=forward, name="relay", daemon=True)
    thread.start()
    try:
        yield RelayLog(queue.put)
    finally:
        ended.set()
        thread.join(30)
        queue.shutdown(force=True)


def direct(log: StageLog) -> RelayLog:
    """Write into `log` without a detour, for a worker that runs in the driver's own process."""
    return RelayLog(lambda message: _write(log, message))


def _write(log: StageLog, message: tuple[Any, ...]) -> None:
    kind, *values = message
    if kind == "metrics":
        metrics, step = values
        log.metrics(metrics, step)
    elif kind == "progress":
        done, total = values
        log.progress(done, total, "steps")
    else:
        from PIL import Image

        from pipelines.pictures import Row, grid

        name, columns, rows, step = values
        lines = [Row(images=[Image.fromarray(pixels) for pixels in row]) for row in rows]
        picture = grid(lines, [(column, 1) for column in columns])
        log.picture(name, picture, step=step)
