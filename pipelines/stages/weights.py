"""Where a stage's frozen networks come from: an artifact of the workflow, a local folder, or a hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol, TypeVar

from pipelines.dag.artifact import Artifact


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
        FileNotFoundError: The path can only be a local folder, and there is none.
    """
    if name in models:
        return _at(config, models[name].local_path())
    path = config.path
    if path is None:
        return config
    if Path(path).expanduser().is_dir():
        return _at(config, Path(path).expanduser().resolve())
    if path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise FileNotFoundError(
            f"there is no folder {path!r} for the weights of {name!r}; correct its path, or name a hub id"
        )
    return config


def is_local(config: HasPath) -> bool:
    """Return whether the weights lie in a local folder; otherwise loading asks a hub."""
    return config.path is not None and Path(config.path).is_dir()


def _at(config: C, path: Path) -> C:
    moved: C = replace(config, path=str(path))  # type: ignore[type-var]
    return moved
