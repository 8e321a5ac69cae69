"""Where a stage's frozen networks come from: an artifact of the workflow, a local folder, or a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, TypeVar

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import refer

HUB_FILES = ["*.json", "*.jinja", "*.safetensors", "*.txt", "*.model"]
"""What a model is made of; nothing that could execute."""


class HasPath(Protocol):
    """A configuration dataclass with the place of its weights."""

    @property
    def path(self) -> str | None: ...


C = TypeVar("C", bound=HasPath)


def resolve(models: Mapping[str, Artifact], name: str, config: C) -> C:
    """Point a model's configuration at its weights.

    Args:
        models: Artifacts by kind; one of kind `name` takes the place of the configured path.
        name: "vae", "encoder", ...
        config: A configuration with a field `path`: a local folder, a hub id, or nothing.

    Returns:
        The configuration, with an absolute path for local weights (workers have other working folders).

    Raises:
        FileNotFoundError: The path means a local folder, and there is none.
    """
    if name in models:
        return _at(config, str(models[name].local_path()))
    if config.path is None or _by_open_clip(config):
        return config
    return _at(config, refer(config.path, f"{name}.path").path)


def digest(config: HasPath | None, key: str) -> str:
    """Digest of a local folder's files; "" where a name says what the weights are.

    Raises:
        FileNotFoundError: The path means a local folder, and there is none.
    """
    if config is None or config.path is None or _by_open_clip(config):
        return ""
    return refer(config.path, key).digest


def fetch(config: HasPath, key: str) -> None:
    """Ask the hub for a model that is named by its id: once, before any worker starts.

    Raises:
        OSError: It cannot be reached, and the model was not fetched before.
    """
    if config.path is None or _by_open_clip(config) or refer(config.path, key).folder:
        return
    from huggingface_hub import snapshot_download

    revision = getattr(config, "revision", None)
    try:
        snapshot_download(config.path, revision=revision, allow_patterns=HUB_FILES)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise OSError(
            f"{key}={config.path} means a model of the hub, which cannot be fetched ({reason}); "
            f"fetch it where there is a network, or set {key} to its folder"
        ) from error


def _by_open_clip(config: HasPath) -> bool:
    """Whether the path is open_clip's MODEL/WEIGHTS, which only that library understands."""
    return getattr(config, "kind", "") == "open_clip"


def _at(config: C, path: str) -> C:
    moved: C = replace(config, path=path)  # type: ignore[type-var]
    return moved
