"""The record in MLflow: one parent run per root and configuration, one nested run per stage that runs."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pipelines.dag import embedded_tracking
from pipelines.dag.machine import MachineRecord
from pipelines.dag.mlflow_runs import experiment, log_inputs, log_params, reopen
from pipelines.dag.mlflow_writer import MlflowWriter, Run
from pipelines.dag.stage_log import StageLog
from pipelines.dag.storage import open_folder
from pipelines.dag.writing import file_errors


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
        if not log.counted:  # a stage without shards
            log.rows(stats)
        log.metrics(stats)
        if manifest:
            log.text("manifest.json", manifest)
            log.tags({"artifact.uri": url, "artifact.digest": json.loads(manifest)["digest"]})
        log.put(lambda client, run: client.set_terminated(run, status))
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

        self._log.put(tag)

    def note(self, text: str) -> None:
        """Show a text (Markdown) on the parent run's page."""
        if text:
            self._log.tags({"mlflow.note.content": text})

    def close(self, status: str, seconds: float = 20.0) -> None:
        """End the parent run, and with the same status the runs of stages that are not finished."""
        if self._machine:
            self._machine.end()
        for log in (*self._open.values(), self._log):
            log.put(lambda client, run: client.set_terminated(run, status))
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
