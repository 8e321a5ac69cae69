"""A stage: published artifacts in, one new artifact out. The runner owns everything else."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import artifacts_of
from pipelines.dag.workspace import Workspace

__all__ = ["Artifact", "Resources", "Stage", "StageResult", "Workspace"]


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a stage occupies while it runs, for the runner to decide which stages may overlap.

    Attributes:
        cpus: CPUs.
        gpus: GPUs.
        elastic: It takes what the cluster has besides, in pieces of this size.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    elastic: bool = False


class Stage(ABC):
    """A node of the workflow, constructed with one frozen config dataclass.

    Class attributes (an instance may set its own, but for `modules` and `apart`):
        name: verb_noun ("encode_tokens").
        inputs: kinds of the artifacts it reads, beside those that its configuration refers to.
        output: kind of the artifact it makes.
        version: raised when the meaning of the output changes.
        resources: what it occupies.
        scored: whether its stats are scores, by which workflows are compared: their parent runs have them.
        modules: what `run` imports and planning does not. The runner loads it before any stage starts: some
            packages break when two threads are the first to import them.
        apart: dotted fields of the configuration that change which shards there are, and not what is made of
            one (see `earlier.py`).
        instead: kinds that take the place of its own ones, and these (see `reading`).
    """

    name: str
    inputs: tuple[str, ...] = ()
    output: str
    version: int = 1
    resources: Resources = Resources()
    scored: bool = False
    modules: ClassVar[tuple[str, ...]] = ()
    apart: ClassVar[tuple[str, ...]] = ()
    instead: Mapping[str, str] = MappingProxyType({})

    def __init__(self, config: Any) -> None:
        self.config = config
        name = getattr(self, "name", type(self).__name__)  # some name themselves afterwards
        self.inputs = (*self.inputs, *artifacts_of(config, name))

    def reading(self, **instead: str) -> Self:
        """Return this stage with other artifacts in the place of its own inputs.

        Args:
            **instead: own kind = the kind that is read in its place: `shard.reading(images="sharp_images")`.

        Raises:
            ValueError: It does not read such a kind.
        """
        if unknown := instead.keys() - set(self.inputs):
            raise ValueError(
                f"{self.name} reads {', '.join(self.inputs)}, and no {', '.join(sorted(unknown))}"
            )
        changed = copy.copy(self)
        changed.inputs = tuple(instead.get(kind, kind) for kind in self.inputs)
        changed.instead = {**self.instead, **{kind: own for own, kind in instead.items()}}
        return changed

    def as_read(self, inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
        """Return artifacts under the kinds that `run` knows them by."""
        return {self.instead.get(kind, kind): artifact for kind, artifact in inputs.items()}

    @abstractmethod
    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        """Write the artifact under `out` and return flat scalar stats; safe to call again after a crash."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What became of a stage in one invocation.

    Attributes:
        name: the stage.
        action: "skip" (was published), "run", "resume", "failed" or "blocked" (something before it failed).
        seconds: how long it ran.
        stats: its stats, from the manifest if it was skipped.
        artifact: what it published, None if it failed or was blocked.
        error: one line, for "failed" and "blocked".
    """

    name: str
    action: str
    seconds: float = 0.0
    stats: Mapping[str, float]
    artifact: Artifact | None = None
    error: str = ""
