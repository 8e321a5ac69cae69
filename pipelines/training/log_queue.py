"""The way from a training worker to the stage's log: a queue that the driver empties.

The worker needs no tracking client (whose import costs seconds), no tracking address and no credentials. It
never waits: a thread sends what comes together within half a second, so that not every step pays for a
message, and what cannot be sent is dropped with one warning.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.dag.stage_log import StageLog

if TYPE_CHECKING:
    from reptok.training.preview import Grid

POLL_SECONDS = GATHER_SECONDS = 0.5
FLUSH_SECONDS = 30.0
Message = tuple[Any, ...]


class QueueLog:
    """What a worker logs to; as picklable as the callable that takes its messages."""

    def __init__(self, send: Callable[[list[Message]], None], *, waits: bool = False):
        """Log through `send`.

        Args:
            send: Takes messages, oldest first.
            waits: Call it at once and in the caller's thread.
        """
        self._send, self._waits = send, waits
        self._outbox: queue.SimpleQueue[Message | threading.Event] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _queue_log, (self._send, self._waits)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Record scalars of a step."""
        if values:
            self._put(("metrics", dict(values), step))

    def progress(self, done: int, total: int) -> None:
        """Tell how far the training is."""
        self._put(("progress", done, total))

    def note(self, text: str) -> None:
        """Print a line where the user looks."""
        self._put(("note", text))

    def grid(self, grid: Grid, step: int) -> None:
        """Record a table of pictures, which the driver draws."""
        # plain values: the queue's process shall not import torch for a class
        self._put(("grid", grid.name, list(grid.columns), list(grid.rows), step))

    def file(self, path: Path, folder: str) -> None:
        """Record a file, which the driver reads where it lies."""
        self._put(("file", str(path), folder))

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until the messages so far are sent, at most so long."""
        done = threading.Event()
        if self._outbox is not None:
            self._outbox.put(done)
            done.wait(seconds)

    def _put(self, message: Message) -> None:
        if self._waits:
            self._send([message])
            return
        if self._outbox is None:
            self._outbox = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(self._outbox,), name="log", daemon=True).start()
        self._outbox.put(message)

    def _work(self, outbox: queue.SimpleQueue[Message | threading.Event]) -> None:
        warned = False
        while True:
            taken = _gathered(outbox)
            try:
                if messages := [item for item in taken if not isinstance(item, threading.Event)]:
                    self._send(messages)
            except Exception as error:  # curves are not worth a training
                if not warned:
                    print(f"warning: the training's curves get lost, it goes on ({error})", flush=True)
                warned = True
            for item in taken:
                if isinstance(item, threading.Event):
                    item.set()


def _gathered(outbox: queue.SimpleQueue[Message | threading.Event]) -> list[Message | threading.Event]:
    """Wait for a message, and take what follows within `GATHER_SECONDS`, or until somebody waits for it."""
    taken = [outbox.get()]
    end = time.monotonic() + GATHER_SECONDS
    while not isinstance(taken[-1], threading.Event) and (left := end - time.monotonic()) > 0:
        try:
            taken.append(outbox.get(timeout=left))
        except queue.Empty:
            break
    return taken


def _queue_log(send: Callable[[list[Message]], None], waits: bool) -> QueueLog:
    return QueueLog(send, waits=waits)


@contextmanager
def log_queue(log: StageLog) -> Iterator[QueueLog]:
    """Pass on to `log` what workers write into the given `QueueLog`, until the block ends."""
    import ray
    from ray.util.queue import Empty, Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # With the driver, whose end is the training's end anyway: a worker's node may die alone.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    sent = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    ended = threading.Event()

    def forward() -> None:
        while True:
            last = ended.is_set()
            try:
                while True:
                    for message in sent.get_nowait():
                        _write(log, message)
            except Empty:
                pass
            except Exception as error:  # the cluster is going down: fit() reports it
                print(f"  the training's log ended early: {error}", flush=True)
                return
            if last:
                return
            ended.wait(POLL_SECONDS)

    thread = threading.Thread(target=forward, name="log-queue", daemon=True)
    thread.start()
    try:
        yield QueueLog(sent.put)
    finally:
        ended.set()
        thread.join(30)
        sent.shutdown(force=True)


def direct(log: StageLog) -> QueueLog:
    """Write into `log` without a detour, for what the driver itself hears of a training."""

    def send(messages: list[Message]) -> None:
        for message in messages:
            _write(log, message)

    return QueueLog(send, waits=True)


def _write(log: StageLog, message: Message) -> None:
    kind, *values = message
    if kind == "metrics":
        metrics, step = values
        log.metrics(metrics, step)
    elif kind == "progress":
        done, total = values
        log.progress(done, total, "steps")
    elif kind == "file":
        path, folder = values
        log.file(path, folder)
    elif kind == "note":
        print(f"  {values[0]}", flush=True)
    else:
        from PIL import Image

        from pipelines.reports.pictures import Row, grid

        name, columns, rows, step = values
        lines = [Row(images=[Image.fromarray(pixels) for pixels in row], label=label) for label, row in rows]
        log.picture(name, grid(lines, [(column, 1) for column in columns]), step=step)
