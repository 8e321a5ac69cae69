"""What a stage tells while it runs: its run in MLflow, its progress, and the rows that it counts."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dag.metrics import board
from pipelines.dag.mlflow_runs import key_of, log_inputs, register_model
from pipelines.dag.mlflow_writer import Metrics, MlflowWriter, Run
from pipelines.dag.progress import Progress

FILE_LIMIT_BYTES = 16 * 2**20
CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases in the registry of models: the newest one, and the best one (see `pipelines/promote.py`)."""


@dataclass(frozen=True)
class RunHandle:
    """What a worker process needs to write into a stage's run."""

    uri: str
    run_id: str


class StageLog:
    """A stage's MLflow run; without one (tracking off or away) every call is accepted and does nothing.

    Attributes:
        counted: Whether rows of shards were.
    """

    def __init__(
        self, stage: str = "stage", writer: MlflowWriter | None = None, run: Run | None = None
    ) -> None:
        self._writer = writer
        self._run = run or Run()
        self._progress = Progress(stage)
        self.counted = False

    @property
    def stage(self) -> str:
        """Whose it is."""
        return self._progress.stage

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Record scalars; non-finite ones are recorded as they are."""
        board.curves(self.stage, values, step)
        now = int(time.time() * 1000)
        self.write([(key_of(k), float(v), now, step or 0) for k, v in values.items()])

    def write(self, entries: list[tuple[str, float, int, int]]) -> None:
        """Record scalars in the run alone: (key, value, time in ms, step)."""
        if self._writer and entries:
            self._writer.put(Metrics(self._run, entries))

    def picture(self, name: str, image: Any, step: int | None = None) -> None:
        """Record a PIL image, with a step as one of a series."""
        name = re.sub(r"[^\w./-]", "_", name)
        if step is None:
            self.put(lambda client, run: client.log_image(run, image, artifact_file=f"{name}.png"))
        else:
            key = name.replace("/", "_")
            self.put(lambda client, run: client.log_image(run, image, key=key, step=step))

    def file(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Record a file, which must stay until the stage ends; of a large one only where it is."""
        size = os.stat(path).st_size
        if size > FILE_LIMIT_BYTES:
            reference = {"uri": Path(path).resolve().as_uri(), "size": size}
            name = f"{Path(path).name}.reference.json"
            self.text(f"{folder}/{name}" if folder else name, json.dumps(reference))
            return
        self.put(lambda client, run: client.log_artifact(run, str(path), folder or None))

    def text(self, name: str, text: str) -> None:
        """Record a text under a file name."""
        self.put(lambda client, run: client.log_text(run, text, name))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""

        def tag(client: Any, run: str) -> None:
            for key, value in tags.items():
                client.set_tag(run, key, str(value))

        self.put(tag)

    def model(self, name: str, url: str) -> None:
        """Register a published folder as a new version of a model, which is the candidate from now on."""
        self.put(lambda client, run: register_model(client, run, name, url, CANDIDATE))

    def inputs(self, inputs: Mapping[str, tuple[str, str]]) -> None:
        """Record input artifacts: kind -> (url, digest)."""
        self.put(lambda client, run: log_inputs(client, run, inputs))

    def progress(self, done: float, total: float, unit: str = "rows") -> None:
        """Print rows, rate and time left, now and then."""
        board.progress(self.stage, done, total)
        self._progress.update(done, total, unit)

    def rows(self, stats: Mapping[str, float], size: float = 0, reasons: Collection[str] = ()) -> None:
        """Count the rows of a shard by their fate (see `Board.rows`)."""
        self.counted = True
        board.rows(self.stage, stats, size, reasons)

    def handle(self, wait_seconds: float = 120.0) -> RunHandle | None:
        """What `attach` needs in another process; None when tracking is off or away."""
        if self._writer is None:
            return None
        self.put(lambda client, run: None)
        end = time.monotonic() + wait_seconds
        while not self._run.ready.wait(0.05):
            if self._writer.away or time.monotonic() > end:
                return None
        return RunHandle(self._writer.uri, self._run.id or "")

    @staticmethod
    def attach(handle: RunHandle | None, stage: str = "stage") -> StageLog:
        """Continue a stage's run in another process (a training worker of rank 0)."""
        if handle is None:
            return StageLog(stage)
        run = Run(id=handle.run_id)
        run.ready.set()
        return StageLog(stage, MlflowWriter(handle.uri), run)

    def flush(self, seconds: float = 20.0) -> None:
        """Wait until everything is written; a worker calls it before it ends."""
        if self._writer:
            self._writer.flush(seconds)

    @property
    def run_id(self) -> str | None:
        return self._run.id

    def put(self, job: Callable[[Any, str], Any]) -> None:
        """Let the writer do something with a client and the run's id, when it comes to it."""
        if self._writer:
            run = self._run
            self._writer.put(lambda client: job(client, run.ensure(client)))
