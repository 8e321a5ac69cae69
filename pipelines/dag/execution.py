"""One stage from its inputs to its published artifact: lock, check again, run, publish."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pipelines.dag import interruption
from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.fingerprint import canonical_json, plain
from pipelines.dag.lock import locked
from pipelines.dag.planner import PlannedStage, flat, outdated_inputs
from pipelines.dag.redaction import redacted
from pipelines.dag.revision import git_commit
from pipelines.dag.stage import StageResult
from pipelines.dag.storage import open_folder
from pipelines.dag.tracking import StageLog, Tracker
from pipelines.dag.workspace import SCRATCH, Workspace

RUN_RECORD = f"{SCRATCH}/run.json"
ORIGIN = f"{SCRATCH}/origin.json"
"""What unfinished work is made from, {kind: digest}; of published work the manifest says it."""

SUPERSEDED = "_superseded"


def execute(planned: PlannedStage, root: str, tracker: Tracker) -> StageResult:
    """Run a stage, unless another process has published it meanwhile; a failure is a result, too."""
    stage, artifact = planned.stage, planned.artifact
    begun = time.monotonic()
    log = StageLog(stage.name)
    try:
        with locked(root, f"{artifact.kind}-{artifact.fingerprint}"):
            if artifact.folder.exists(MANIFEST):
                current = artifact.published and not outdated_inputs(artifact, planned.inputs)
                if current and not planned.forced:
                    return skipped(planned)
                _supersede(artifact, root)
            out = Workspace(artifact.url, artifact.fingerprint)
            out.folder.remove_unfinished()
            out.folder.write_bytes(ORIGIN, canonical_json(_digests(planned)))
            log = out.log = _open_log(planned, out, tracker)
            stats = _finite(stage.name, stage.run(stage.as_read(planned.inputs), out))
            out.folder.remove_unfinished()  # of workers that were killed and whose shards others did
            seconds = time.monotonic() - begun
            log.handle(wait_seconds=5.0)  # the manifest names the run, which may still be on its way
            published = _publish(planned, out, stats, seconds)
            manifest = published.folder.read_bytes(MANIFEST).decode()
            tracker.finish_stage(log, {**stats, "seconds": seconds}, manifest, "FINISHED", published.url)
            out.remove_scratch()
        action = "resume" if planned.action == "resume" else "run"
        return StageResult(name=stage.name, action=action, seconds=seconds, stats=stats, artifact=published)
    except BaseException as error:  # a stage may raise anything: the runner waits for its result
        if interruption.interrupted() and not isinstance(error, Exception):
            raise  # the program ends; what the stage saved is resumed
        message = (
            f"{type(error).__name__}: {error}" if not isinstance(error, (ValueError, OSError)) else str(error)
        )
        message, trace = redacted(message), redacted(traceback.format_exc())
        log.text("error.txt", trace)
        tracker.finish_stage(log, {}, None, "FAILED")
        where = _keep_traceback(artifact, trace)
        seconds = time.monotonic() - begun
        return StageResult(name=stage.name, action="failed", seconds=seconds, stats={}, error=message + where)


def skipped(planned: PlannedStage) -> StageResult:
    """The result of a stage whose artifact is published already.

    What a kill right after publishing left of the work is removed.
    """
    with suppress(OSError):
        planned.artifact.folder.remove(SCRATCH)
    stats = planned.artifact.manifest["stats"]
    return StageResult(name=planned.stage.name, action="skip", stats=stats, artifact=planned.artifact)


def _finite(stage: str, stats: Mapping[str, float]) -> dict[str, float]:
    """The stats that are numbers, which is what a manifest can hold; the others are told."""
    values = {key: float(value) for key, value in stats.items()}
    if odd := [f"{key} {value}" for key, value in values.items() if not math.isfinite(value)]:
        print(f"note: {stage}: no finite number, and left out of its figures: {', '.join(odd)}", flush=True)
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _publish(planned: PlannedStage, out: Workspace, stats: Mapping[str, float], seconds: float) -> Artifact:
    stage, inputs = planned.stage, planned.inputs
    out.publish(
        {
            "stage": stage.name,
            "version": stage.version,
            "kind": stage.output,
            "fingerprint": planned.artifact.fingerprint,
            "config": plain(stage.config),
            "inputs": {kind: artifact.fingerprint for kind, artifact in inputs.items()},
            "input_digests": _digests(planned),
            "stats": dict(stats),
            "seconds": round(seconds, 3),
            "git_commit": git_commit(),
            "run_id": out.log.run_id,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )
    return Artifact(stage.output, planned.artifact.fingerprint, planned.artifact.url)


def _digests(planned: PlannedStage) -> dict[str, str]:
    return {kind: artifact.digest for kind, artifact in planned.inputs.items()}


def _open_log(planned: PlannedStage, out: Workspace, tracker: Tracker) -> StageLog:
    """The stage's MLflow run: the one of the interrupted attempt, if there was one."""
    stage, inputs = planned.stage, planned.inputs
    record: dict[str, Any] = out.read_json(RUN_RECORD) if out.exists(RUN_RECORD) else {}
    tags = {"stage": stage.name, "fingerprint": out.fingerprint, "git_commit": git_commit()}
    tags |= {f"input.{kind}": artifact.fingerprint for kind, artifact in inputs.items()}

    def remember(run_id: str) -> None:
        if not planned.artifact.folder.exists(MANIFEST):
            out.folder.write_bytes(RUN_RECORD, f'{{"run_id": "{run_id}"}}'.encode())

    return tracker.stage(
        stage.name,
        tags=tags,
        params=flat(plain(stage.config)),
        run_id=record.get("run_id"),
        created=remember,
        inputs={kind: (artifact.url, artifact.digest) for kind, artifact in inputs.items()},
    )


def _supersede(artifact: Artifact, root: str) -> None:
    """Move a published folder aside; what reads it now keeps reading it there until it opens another file."""
    store = open_folder(root)
    name = f"{SUPERSEDED}/{artifact.kind}/{artifact.fingerprint}"
    taken = open_folder(store.url_of(f"{SUPERSEDED}/{artifact.kind}")).children()
    count = 1
    while f"{artifact.fingerprint}-{count}" in taken:
        count += 1
    artifact.folder.move_to(open_folder(store.url_of(f"{name}-{count}")))


def _keep_traceback(artifact: Artifact, trace: str) -> str:
    """Write the traceback beside the unfinished work and say where, unless that cannot be written either."""
    name = f"{SCRATCH}/error.txt"
    try:
        artifact.folder.write_bytes(name, trace.encode())
    except OSError:
        return ""
    return f" (traceback: {artifact.url_of(name)})"
