"""A background thread that alone talks to MLflow, so that no stage ever waits for the tracking server.

Importing MLflow takes seconds and a server may be slow or away: calls are queued (bounded) and written in
order; what cannot be written after a few tries is dropped with one warning.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipelines.dag.metrics import board
from pipelines.dag.redaction import redacted

QUEUE_LIMIT = 10_000
BATCH_LIMIT = 1000  # metrics in one call, MLflow's own limit
RETRY_SECONDS = (0.5, 2.0)
HICCUP_SECONDS = 3.0
Job = Callable[[Any], Any]


@dataclass(frozen=True)
class Metrics:
    """Metrics on their way to a run; neighbours in the queue are written in one call."""

    run: Run
    entries: list[tuple[str, float, int, int]]  # key, value, timestamp in ms, step


@dataclass
class Run:
    """An MLflow run that is created when its first record is written (or found again by `id`).

    Attributes:
        id: run id, None until created.
        create: makes (or reopens) the run and returns its id.
        created: called with the id.
    """

    id: str | None = None
    create: Callable[[Any], str] | None = None
    created: Callable[[str], None] | None = None
    ready: threading.Event = field(default_factory=threading.Event)

    def ensure(self, client: Any) -> str:
        """The id; creates the run if need be (writer thread only)."""
        if not self.ready.is_set():
            if self.create is not None:
                self.id = self.create(client)
            self.ready.set()
            if self.created is not None and self.id is not None:
                self.created(self.id)
        assert self.id is not None
        return self.id


class MlflowWriter:
    """Writes queued jobs to one tracking server."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._away_since: float | None = None
        self._warned = False
        self._queue: queue.Queue[Job | Metrics] = queue.Queue(QUEUE_LIMIT)
        threading.Thread(target=self._work, name="mlflow-writer", daemon=True).start()

    def put(self, job: Job | Metrics) -> None:
        """Queue a job; when the queue is full (the server is long away) it is dropped."""
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            board.tracking_dropped("queue_full")
            self._warn("the queue to the tracking server is full")

    @property
    def away(self) -> bool:
        """Whether the server has not answered for longer than a hiccup."""
        since = self._away_since
        return since is not None and time.monotonic() - since > HICCUP_SECONDS

    def flush(self, seconds: float = 20.0) -> bool:
        """Wait until all is written, at most so long, and not at all while the server is away."""
        end = time.monotonic() + seconds
        while self._queue.unfinished_tasks and not self.away and time.monotonic() < end:
            time.sleep(0.02)
        return not self._queue.unfinished_tasks

    def _work(self) -> None:
        client: Any = None
        while True:
            taken = self._take()
            try:
                for wait in (*RETRY_SECONDS, None):
                    try:
                        client = client or self._connect()
                        self._write(client, taken)
                        self._away_since = None
                        break
                    except Exception as error:
                        self._away_since = self._away_since or time.monotonic()
                        if wait is None or self.away:
                            board.tracking_dropped("server_away", len(taken))
                            self._warn(f"{type(error).__name__}: {_first_line(error)}")
                            break
                        time.sleep(wait)
            finally:
                for _ in taken:
                    self._queue.task_done()

    def _take(self) -> list[Job | Metrics]:
        """The next job, or as many consecutive metrics of one run as go into one call."""
        first = self._queue.get()
        taken = [first]
        if isinstance(first, Metrics):
            with self._queue.mutex:
                waiting = self._queue.queue
                count = len(first.entries)
                while waiting and isinstance(waiting[0], Metrics) and waiting[0].run is first.run:
                    count += len(waiting[0].entries)
                    if count > BATCH_LIMIT:
                        break
                    taken.append(waiting.popleft())
        return taken

    def _write(self, client: Any, taken: list[Job | Metrics]) -> None:
        if isinstance(taken[0], Metrics):
            from mlflow.entities import Metric

            run_id = taken[0].run.ensure(client)
            entries = [
                entry for metrics in taken if isinstance(metrics, Metrics) for entry in metrics.entries
            ]
            for begin in range(0, len(entries), BATCH_LIMIT):
                client.log_batch(run_id, metrics=[Metric(*e) for e in entries[begin : begin + BATCH_LIMIT]])
        else:
            taken[0](client)

    def _connect(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _warn(self, cause: str) -> None:
        if not self._warned:
            self._warned = True
            said = f"MLflow at {self.uri} cannot be written, the work goes on without it ({cause})"
            print(f"warning: {redacted(said)}", flush=True)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
