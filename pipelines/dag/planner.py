"""What would run, and why: compares the workflow with what is published. Reads manifests, starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import fingerprint, plain
from pipelines.dag.graph import GraphError, named, ordered, with_ancestors
from pipelines.dag.manifest import MANIFEST, ManifestError, read_manifest
from pipelines.dag.stage import Stage
from pipelines.dag.storage import open_folder

SHOWN_DIFFERENCES = 4


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage with what will become of it.

    Attributes:
        stage: the stage.
        action: "run", "resume" or "skip".
        reason: why, for a person.
        artifact: what it makes or has made.
        inputs: its input artifacts by kind.
        forced: whether it runs although it is published.
    """

    stage: Stage
    action: str
    reason: str
    artifact: Artifact
    inputs: Mapping[str, Artifact]
    forced: bool = False


def plan(
    stages: Sequence[Stage],
    root: str,
    *,
    until: str | None = None,
    only: str | None = None,
    force: str | None = None,
) -> list[PlannedStage]:
    """The stages that an invocation concerns, in order, each with action and reason.

    Args:
        stages: the workflow.
        root: URL of the artifact store.
        until: leave out what this stage does not depend on.
        only: this stage alone; its inputs must be published.
        force: run this stage although it is published. The published folder is moved to
            `{root}/_superseded/`, never overwritten. Stages downstream run again only if the new bytes differ
            from the old ones.

    Raises:
        GraphError: the stages do not form a workflow, or a named stage is not one of them.
        FileNotFoundError: `only` and an input is not published.
    """
    stages = ordered(stages)
    chosen = with_ancestors(stages, until) if until else {stage.name for stage in stages}
    if only:
        chosen = {named(stages, only).name}
    if force and named(stages, force).name not in chosen:
        raise GraphError(
            f"force={force} is outside of what {'only' if only else 'until'}={only or until} runs"
        )
    artifacts: dict[str, Artifact] = {}
    planned: dict[str, PlannedStage] = {}
    for stage in stages:
        inputs = {kind: artifacts[kind] for kind in stage.inputs}
        artifacts[stage.output] = artifact_of(stage, inputs, root)
        if stage.name in chosen:
            upstream = [planned[p] for p in planned if planned[p].artifact.kind in inputs]
            planned[stage.name] = _planned(
                stage, artifacts[stage.output], inputs, upstream, stage.name == force
            )
    if only:
        _require_inputs(planned[only], stages)
    return list(planned.values())


def artifact_of(stage: Stage, inputs: Mapping[str, Artifact], root: str) -> Artifact:
    """Where the stage's artifact is or will be."""
    identity = fingerprint(
        stage.name,
        stage.version,
        stage.config,
        {kind: artifact.fingerprint for kind, artifact in inputs.items()},
    )
    return Artifact(stage.output, identity, open_folder(root).url_of(f"{stage.output}/{identity}"))


def workflow_digest(stages: Sequence[Stage]) -> str:
    """What identifies a configuration: the digest of all its stages, whichever of them an invocation runs."""
    parts = {stage.name: (stage.version, stage.config, stage.inputs) for stage in stages}
    return fingerprint("workflow", 0, parts, {})


def outdated_inputs(artifact: Artifact, inputs: Mapping[str, Artifact]) -> list[str]:
    """Inputs that were made again since, with other bytes than the artifact was made from."""
    recorded = artifact.manifest["input_digests"]
    return [
        kind for kind, source in inputs.items() if source.published and recorded.get(kind) != source.digest
    ]


def _planned(
    stage: Stage,
    artifact: Artifact,
    inputs: Mapping[str, Artifact],
    upstream: list[PlannedStage],
    forced: bool,
) -> PlannedStage:
    action, reason = "skip", "published"
    if not artifact.published:
        if artifact.folder.exists(MANIFEST):
            action, reason = "run", "its manifest is damaged"
        elif artifact.folder.sizes():
            action, reason = "resume", "interrupted"
        else:
            action, reason = "run", _difference(stage, artifact, inputs)
    elif forced:
        action, reason = "run", "forced"
    elif outdated := outdated_inputs(artifact, inputs):
        action, reason = (
            "run",
            "; ".join(f"input {kind} was made again with other bytes" for kind in outdated),
        )
    elif again := [p.stage.name for p in upstream if p.action != "skip" or "runs again" in p.reason]:
        reason = f"published; runs again only if {again[0]} gives other bytes"
    return PlannedStage(
        stage=stage, action=action, reason=reason, artifact=artifact, inputs=inputs, forced=forced
    )


def _difference(stage: Stage, artifact: Artifact, inputs: Mapping[str, Artifact]) -> str:
    """Compare with the newest artifact that this stage has published."""
    before = _newest_manifest(stage, artifact)
    if before is None:
        return "never ran"
    found = []
    if before["version"] != stage.version:
        found.append(f"{stage.name} version {before['version']} -> {stage.version}")
    every, significant = flat(plain(stage.config)), flat(plain(stage.config, significant_only=True))
    recorded = flat(plain(before["config"]))
    old = {key: value for key, value in recorded.items() if key in significant or key not in every}
    for key in sorted(old.keys() | significant.keys()):
        if old.get(key, "absent") != significant.get(key, "absent"):
            found.append(f"{stage.name}.{key} {_shown(old, key)} -> {_shown(significant, key)}")
    for kind in sorted(before["inputs"].keys() | inputs.keys()):
        if before["inputs"].get(kind) != (inputs[kind].fingerprint if kind in inputs else None):
            found.append(f"input {kind} changed")
    if len(found) > SHOWN_DIFFERENCES:
        found[SHOWN_DIFFERENCES:] = [f"and {len(found) - SHOWN_DIFFERENCES} more"]
    return "; ".join(found) or "its artifact was removed"


def _newest_manifest(stage: Stage, artifact: Artifact) -> dict[str, Any] | None:
    kind = open_folder(artifact.url.rsplit("/", 1)[0])
    names = [f"{child}/{MANIFEST}" for child in kind.children() if kind.exists(f"{child}/{MANIFEST}")]
    for name in sorted(names, key=kind.modified, reverse=True):
        try:
            manifest = read_manifest(open_folder(kind.url_of(name.rpartition("/")[0])))
        except ManifestError:
            continue
        if manifest["stage"] == stage.name:
            return manifest
    return None


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value} if prefix else {}
    result = {}
    for key, item in value.items():
        result.update(flat(item, f"{prefix}.{key}" if prefix else str(key)))
    return result


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "absent"


def _require_inputs(planned: PlannedStage, stages: Sequence[Stage]) -> None:
    makers = {stage.output: stage.name for stage in stages}
    missing = [kind for kind, artifact in planned.inputs.items() if not artifact.published]
    if missing:
        name = planned.stage.name
        raise FileNotFoundError(
            f"only={name} needs {', '.join(missing)}, not published for this configuration: first run "
            + " and ".join(f"until={makers[kind]}" for kind in missing)
        )
