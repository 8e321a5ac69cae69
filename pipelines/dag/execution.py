"""One stage from its inputs to its published artifact: lock, check again, run, publish."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any, cast

from pipelines.dag import interruption
from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.earlier import ask
from pipelines.dag.fingerprint import canonical_json, plain
from pipelines.dag.lock import Held, locked
from pipelines.dag.pinned import models_of, pinned
from pipelines.dag.planner import PlannedStage, flat, outdated_inputs
from pipelines.dag.redaction import redacted
from pipelines.dag.revision import git_commit
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.stage import StageResult
from pipelines.dag.stage_log import StageLog
from pipelines.dag.storage import open_folder
from pipelines.dag.tracking import Tracker
from pipelines.dag.workspace import SCRATCH, Workspace

RUN_RECORD = f"{SCRATCH}/run.json"
ORIGIN = f"{SCRATCH}/origin.json"
"""What unfinished work is made from, {kind: {fingerprint, digest}}; the digest of what is unfinished is "".

Of published work the manifest says it.
"""

SUPERSEDED = "_superseded"


class Attempt:
    """A stage on the way to its published artifact, whose lock it holds while it is entered.

    Args:
        planned: the stage; an input that is not published yet must be when the stage publishes.
        root: the artifact store.
        tracker: gets the stage's run.

    Attributes:
        out: where the stage writes.
        stage: what is to run: the stage, with the commits of the models that it was begun with.
        skipped: the result, if another process has published the artifact meanwhile.
    """

    out: Workspace

    def __init__(self, planned: PlannedStage, root: str, tracker: Tracker) -> None:
        self._planned, self._root, self._tracker = planned, root, tracker
        self._begun = time.monotonic()
        self._log = StageLog(planned.stage.name)
        self._lock = ExitStack()
        self._told: Collection[str] = ()  # inputs that the run knows
        self._models: Mapping[str, str] = {}
        self.stage = planned.stage
        self.skipped: StageResult | None = None

    def __enter__(self) -> Attempt:
        self._check = self._lock.enter_context(locked(self._root, lock_of(self._planned.artifact)))
        try:
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        self._lock.close()

    def _open(self) -> None:
        planned, artifact = self._planned, self._planned.artifact
        if artifact.folder.exists(MANIFEST):
            current = artifact.published and not outdated_inputs(artifact, planned.inputs)
            if current and not planned.forced:
                with suppress(OSError):
                    artifact.folder.remove(SCRATCH)
                self.skipped = _skipped(planned)
                return
            _supersede(artifact, self._root)
        self.out = Workspace(artifact.url, artifact.fingerprint, fenced=self._check is not None)
        if self._check is not None:
            from pipelines.dag.fence import ArtifactFence
            from pipelines.dag.s3 import S3Folder

            self.out.behind(ArtifactFence(cast(S3Folder, self.out.folder), self._check))
        self.out.folder.remove_unfinished()
        self.record_origin()
        self._log = self.out.log = _open_log(planned, self.out, self._tracker)
        self._told = _known(planned).keys()
        if isinstance(planned.stage, ShardStage):
            self._models = models_of(planned.stage, self.out)
            self.stage = pinned(planned.stage, self._models)
            ask(self.stage, planned.stage.as_read(planned.inputs), self.out, anew=planned.forced)

    def record_origin(self) -> None:
        """Write down what the unfinished work is made from, and the digests of what is published by now."""
        self.out.folder.write_bytes(ORIGIN, canonical_json(_origin(self._planned)))

    def published(self, stats: Mapping[str, float]) -> StageResult:
        """Publish what lies in the workspace; its scratch is `clean`'s."""
        planned, out = self._planned, self.out
        stats = _finite(planned.stage.name, stats)
        out.folder.remove_unfinished()  # of workers that were killed and whose shards others did
        seconds = time.monotonic() - self._begun
        self._log.handle(wait_seconds=5.0)  # the manifest names the run, which may still be on its way
        if self._check is not None:
            self._check()
        artifact = _publish(planned, out, stats, seconds, self._models)
        manifest = artifact.folder.read_bytes(MANIFEST).decode()
        self._log.inputs({kind: known for kind, known in _known(planned).items() if kind not in self._told})
        entries = {**stats, "seconds": seconds}
        self._tracker.finish_stage(self._log, entries, manifest, "FINISHED", artifact.url)
        return StageResult(
            name=planned.stage.name, action="resume" if planned.action == "resume" else "run",
            seconds=seconds, stats=stats, artifact=artifact,
        )  # fmt: skip

    def failed(self, error: BaseException) -> StageResult:
        """The result of a stage that raised, whatever it was: the runner waits for it."""
        if interruption.interrupted() and not isinstance(error, Exception):
            raise error  # the program ends; what the stage saved is resumed
        told = isinstance(error, (ValueError, OSError))
        message = redacted(str(error) if told else f"{type(error).__name__}: {error}")
        trace = redacted("".join(traceback.format_exception(error)))
        self._log.text("error.txt", trace)
        self._tracker.finish_stage(self._log, {}, None, "FAILED")
        message += _keep_traceback(self._planned.artifact, trace)
        seconds = time.monotonic() - self._begun
        name = self._planned.stage.name
        return StageResult(name=name, action="failed", seconds=seconds, stats={}, error=message)

    def clean(self) -> None:
        """Remove what the work has left beside the published artifact."""
        self.out.remove_scratch()

    def leave(self) -> None:
        """Give the work up to a later attempt, which finds its run on record."""
        self._log.handle(wait_seconds=5.0)
        self.close()


def execute(planned: PlannedStage, root: str, tracker: Tracker) -> StageResult:
    """Run a stage, unless another process has published it meanwhile; a failure is a result, too."""
    attempt = Attempt(planned, root, tracker)
    try:
        with attempt:
            if attempt.skipped:
                return attempt.skipped
            stage = attempt.stage
            result = attempt.published(stage.run(stage.as_read(planned.inputs), attempt.out))
            attempt.clean()
            return result
    except BaseException as error:
        return attempt.failed(error)


def skipped(planned: PlannedStage) -> StageResult:
    """The result of a stage whose artifact is published already.

    What a kill right after publishing left of the work is removed, unless somebody is still at work: a chain
    needs its notes of what is published until its last stage has ended.
    """
    folder, root = planned.artifact.folder, planned.artifact.url.rsplit("/", 2)[0]
    with suppress(OSError, Held):
        if SCRATCH in folder.children():
            with locked(root, lock_of(planned.artifact), wait=False):
                folder.remove(SCRATCH)
    return _skipped(planned)


def lock_of(artifact: Artifact) -> str:
    """Name of an artifact's lock, held by whoever writes in its folder."""
    return f"{artifact.kind}-{artifact.fingerprint}"


def _skipped(planned: PlannedStage) -> StageResult:
    stats = planned.artifact.manifest["stats"]
    return StageResult(name=planned.stage.name, action="skip", stats=stats, artifact=planned.artifact)


def _finite(stage: str, stats: Mapping[str, float]) -> dict[str, float]:
    """The stats that are numbers, which is what a manifest can hold; the others are told."""
    values = {key: float(value) for key, value in stats.items()}
    if odd := [f"{key} {value}" for key, value in values.items() if not math.isfinite(value)]:
        print(f"note: {stage}: no finite number, and left out of its figures: {', '.join(odd)}", flush=True)
    return {key: value for key, value in values.items() if math.isfinite(value)}


def _publish(
    planned: PlannedStage,
    out: Workspace,
    stats: Mapping[str, float],
    seconds: float,
    models: Mapping[str, str],
) -> Artifact:
    stage, inputs = planned.stage, planned.inputs
    out.publish(
        {
            "stage": stage.name,
            "version": stage.version,
            "kind": stage.output,
            "fingerprint": planned.artifact.fingerprint,
            "config": plain(stage.config),
            "models": dict(models),
            "inputs": {kind: artifact.fingerprint for kind, artifact in inputs.items()},
            "input_digests": {kind: artifact.digest for kind, artifact in inputs.items()},
            "stats": dict(stats),
            "seconds": round(seconds, 3),
            "git_commit": git_commit(),
            "run_id": out.log.run_id,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )
    return Artifact(stage.output, planned.artifact.fingerprint, planned.artifact.url)


def _origin(planned: PlannedStage) -> dict[str, dict[str, str]]:
    return {
        kind: {"fingerprint": made.fingerprint, "digest": made.digest if made.published else ""}
        for kind, made in planned.inputs.items()
    }


def _known(planned: PlannedStage) -> dict[str, tuple[str, str]]:
    """URL and digest of the inputs that are published."""
    inputs = planned.inputs.items()
    return {kind: (artifact.url, artifact.digest) for kind, artifact in inputs if artifact.published}


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
        inputs=_known(planned),
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
