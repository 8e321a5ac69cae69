"""The record in MLflow: one parent run per root and configuration, one nested run per stage that runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipelines.dag import embedded_tracking
from pipelines.dag.machine import MachineRecord
from pipelines.dag.metrics import board
from pipelines.dag.mlflow_runs import experiment, key_of, log_inputs, log_params, register_model, reopen
from pipelines.dag.mlflow_writer import Metrics, MlflowWriter, Run
from pipelines.dag.progress import Progress
from pipelines.dag.storage import open_folder
from pipelines.dag.writing import file_errors

FILE_LIMIT_BYTES = 16 * 2**20
CANDIDATE, CHAMPION = "candidate", "champion"
"""Aliases in the registry of models: the newest one, and the best one (see `pipelines/promote.py`)."""


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where runs are recorded.

    Attributes:
        uri: MLflow tracking URI; None means `MLFLOW_TRACKING_URI`, else `sqlite:///{root}/mlflow.db`.
        experiment: MLflow experiment.
        enabled: False records nothing.
    """

    uri: str | None = None
    experiment: str = "reptok"
    enabled: bool = True


@dataclass(frozen=True)
class RunHandle:
    """What a worker process needs to write into a stage's run."""

    uri: str
    run_id: str


class StageLog:
    """A stage's MLflow run; without one (tracking off or away) every call is accepted and does nothing."""

    def __init__(
        self, stage: str = "stage", writer: MlflowWriter | None = None, run: Run | None = None
    ) -> None:
        self._writer = writer
        self._run = run or Run()
        self._progress = Progress(stage)
        self._counted = False

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
            self._put(lambda client, run: client.log_image(run, image, artifact_file=f"{name}.png"))
        else:
            key = name.replace("/", "_")
            self._put(lambda client, run: client.log_image(run, image, key=key, step=step))

    def file(self, path: str | os.PathLike[str], folder: str = "") -> None:
        """Record a file, which must stay until the stage ends; of a large one only where it is."""
        size = os.stat(path).st_size
        if size > FILE_LIMIT_BYTES:
            reference = {"uri": Path(path).resolve().as_uri(), "size": size}
            name = f"{Path(path).name}.reference.json"
            self.text(f"{folder}/{name}" if folder else name, json.dumps(reference))
            return
        self._put(lambda client, run: client.log_artifact(run, str(path), folder or None))

    def text(self, name: str, text: str) -> None:
        """Record a text under a file name."""
        self._put(lambda client, run: client.log_text(run, text, name))

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags of the run."""

        def tag(client: Any, run: str) -> None:
            for key, value in tags.items():
                client.set_tag(run, key, str(value))

        self._put(tag)

    def model(self, name: str, url: str) -> None:
        """Register a published folder as a new version of a model, which is the candidate from now on."""
        self._put(lambda client, run: register_model(client, run, name, url, CANDIDATE))

    def inputs(self, inputs: Mapping[str, tuple[str, str]]) -> None:
        """Record input artifacts: kind -> (url, digest)."""
        self._put(lambda client, run: log_inputs(client, run, inputs))

    def progress(self, done: float, total: float, unit: str = "rows") -> None:
        """Print rows, rate and time left, now and then."""
        board.progress(self.stage, done, total)
        self._progress.update(done, total, unit)

    def rows(self, stats: Mapping[str, float], size: float = 0, reasons: Collection[str] = ()) -> None:
        """Count the rows of a shard by their fate (see `Board.rows`)."""
        self._counted = True
        board.rows(self.stage, stats, size, reasons)

    def handle(self, wait_seconds: float = 120.0) -> RunHandle | None:
        """What `attach` needs in another process; None when tracking is off or away."""
        if self._writer is None:
            return None
        self._put(lambda client, run: None)
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

    def _put(self, job: Callable[[Any, str], Any]) -> None:
        if self._writer:
            run = self._run
            self._writer.put(lambda client: job(client, run.ensure(client)))


class Tracker:
    """The parent run of a root and configuration, begun or found again, and the runs of its stages."""

    def __init__(
        self,
        config: TrackingConfig,
        root: str,
        tags: Mapping[str, str],
        *,
        configuration: str = "",
        name: str = "workflow",
        params: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Prepare; nothing is asked or written before the first record.

        Args:
            config: where.
            root: the artifact store's URL.
            tags: of the parent run.
            configuration: digest of what the workflow does; the parent run of an earlier invocation with the
                same digest and root goes on.
            name: of the parent run.
            params: of the parent run, when it is made: what the invocation set itself.
        """
        self._config = config
        self._root = root
        self._writer = MlflowWriter(tracking_uri(config, root)) if config.enabled else None
        self._experiment = ""
        self._open: dict[str, StageLog] = {}  # by stage; a later attempt takes the place of an earlier one
        self._machine = MachineRecord(lambda: list(self._open.values())) if config.enabled else None
        url = open_folder(root).url
        identity = hashlib.sha256(f"{url} {configuration}".encode()).hexdigest()[:16]
        tags = {**tags, "workflow": identity, "root": url, "configuration": configuration}
        self._parent = Run(create=lambda client: self._find_parent(client, name, tags, params))
        self._log = StageLog("workflow", self._writer, self._parent)

    def stage(
        self,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        run_id: str | None,
        created: Callable[[str], None],
        inputs: Mapping[str, tuple[str, str]],
    ) -> StageLog:
        """The log of a stage that runs now; `run_id` continues an interrupted run.

        Args:
            name: the stage.
            tags: stage, fingerprint, ...
            params: flat resolved config.
            run_id: the run of the interrupted attempt, if there is one.
            created: told the id of the run.
            inputs: kind -> (url, digest) of the input artifacts.
        """

        def create(client: Any) -> str:
            parent = self._parent.ensure(client)
            if run_id and reopen(client, run_id):
                return run_id
            new = self._create(client, name, {**tags, "mlflow.parentRunId": parent})
            log_params(client, new, params)
            log_inputs(client, new, inputs)
            return new

        log = StageLog(name, self._writer, Run(create=create, created=created))
        log.tags({"last_invocation": time.strftime("%Y-%m-%d %H:%M:%S")})
        self._open[name] = log
        return log

    def finish_stage(
        self, log: StageLog, stats: Mapping[str, float], manifest: str | None, status: str, url: str = ""
    ) -> None:
        """Record stats, manifest (its JSON) and where the artifact is, and end the stage's run."""
        if not log._counted:  # a stage without shards
            log.rows(stats)
        log.metrics(stats)
        if manifest:
            log.text("manifest.json", manifest)
            log.tags({"artifact.uri": url, "artifact.digest": json.loads(manifest)["digest"]})
        log._put(lambda client, run: client.set_terminated(run, status))
        log.flush()
        self._open.pop(log.stage, None)

    def link(
        self, stage: str, action: str, fingerprint: str, scores: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """Tell in the parent run what became of a stage, which run made its artifact, and its scores."""
        self._log.metrics(scores)

        def tag(client: Any, run: str) -> None:
            query = f"tags.fingerprint = '{fingerprint}'"
            found = client.search_runs([self._experiment], query, max_results=1) if fingerprint else []
            client.set_tag(run, f"stage.{stage}", " ".join([action, *(made.info.run_id for made in found)]))

        self._log._put(tag)

    def note(self, text: str) -> None:
        """Show a text (Markdown) on the parent run's page."""
        if text:
            self._log.tags({"mlflow.note.content": text})

    def close(self, status: str, seconds: float = 20.0) -> None:
        """End the parent run, and with the same status the runs of stages that are not finished."""
        if self._machine:
            self._machine.end()
        for log in (*self._open.values(), self._log):
            log._put(lambda client, run: client.set_terminated(run, status))
        self._log.flush(seconds)

    def _find_parent(self, client: Any, name: str, tags: dict[str, str], params: Mapping[str, Any]) -> str:
        self._experiment = experiment(client, self._config.experiment, self._root)
        query = f"tags.workflow = '{tags['workflow']}'"
        found = client.search_runs([self._experiment], query, max_results=1, order_by=["start_time ASC"])
        for run in found:
            client.update_run(run.info.run_id, status="RUNNING")
            client.set_tag(run.info.run_id, "git_commit", tags.get("git_commit", ""))
            return str(run.info.run_id)
        made = self._create(client, name, tags)
        log_params(client, made, params)
        return made

    def _create(self, client: Any, name: str, tags: dict[str, str]) -> str:
        return str(client.create_run(self._experiment, run_name=name, tags=tags).info.run_id)


def tracking_uri(config: TrackingConfig, root: str) -> str:
    """The URI that `config` means for an artifact store at `root`."""
    chosen = config.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if chosen:
        return chosen.replace("{root}", root)
    address = embedded_tracking.uri(root)
    path = embedded_tracking.database(root)
    with file_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    embedded_tracking.relocate(root)
    return address
