"""The commits of the hub's models that an artifact is made with: asked for once, and kept to.

A branch moves. What was begun with a commit is gone on with by the same one, on all machines and however
often it is interrupted, and what other commits have made is not taken for the same (see `earlier.py`).
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.reference import fetch_model, hub_id, references
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import SCRATCH, Workspace

S = TypeVar("S", bound=Stage)
MODELS = f"{SCRATCH}/models.json"
"""Of unfinished work, `models_of` what it was begun with."""


def models_of(stage: Stage, out: Workspace) -> dict[str, str]:
    """By the dotted key of a stage's configuration, the commit of each model of the hub that it names.

    Raises:
        OSError: The hub cannot be reached, and the model was not fetched before.
    """
    if out.exists(MODELS):
        return dict(json.loads(out.read_bytes(MODELS)))
    found = {}
    for key, path, kind in references(stage.config):
        if kind == "network" and hub_id(path):
            commit = fetch_model(path, key, _revision(stage.config, key))
            if commit:
                found[key] = commit
    if found:
        out.folder.write_bytes(MODELS, canonical_json(found))
    return found


def pinned(stage: S, commits: Mapping[str, str]) -> S:
    """The stage, whose configuration names these commits; it has its fingerprint from the one it had."""
    if not commits:
        return stage
    changed = copy.copy(stage)
    changed.config = _pinned(stage.config, commits, "")
    return changed


def _pinned(config: Any, commits: Mapping[str, str], prefix: str) -> Any:
    if isinstance(config, Mapping):
        return {name: _pinned(part, commits, f"{prefix}{name}.") for name, part in config.items()}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    values: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if commit := commits.get(f"{prefix}{field.name}"):
            hub = value.partition("@")[0]
            told_apart = hasattr(config, "revision")
            values |= {field.name: hub, "revision": commit} if told_apart else {field.name: f"{hub}@{commit}"}
        elif dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            values[field.name] = _pinned(value, commits, f"{prefix}{field.name}.")
    return dataclasses.replace(config, **values)


def _revision(config: Any, key: str) -> str | None:
    """What a configuration says of the revision beside the path at a dotted key."""
    for name in key.split(".")[:-1]:
        config = config[name] if isinstance(config, Mapping) else getattr(config, name)
    return getattr(config, "revision", None)
