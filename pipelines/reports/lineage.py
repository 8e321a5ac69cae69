"""Everything that led to some artifacts: the stages before them, their times and their rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.dag.artifact import Artifact, ManifestError
from pipelines.dag.fingerprint import plain

DROPPED = "dropped_"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A published stage of the past.

    Attributes:
        artifact: what it made.
        stage: its name.
        seconds: how long it ran.
        stats: its figures.
        config: its configuration.
        git_commit: the code that ran.
    """

    artifact: Artifact
    stage: str
    seconds: float
    stats: dict[str, float]
    config: Any
    git_commit: str

    @property
    def rows_in(self) -> int | None:
        """Rows that it was given, None for a stage that counts none."""
        return int(self.stats["rows_in"]) if "rows_in" in self.stats else None

    @property
    def rows_out(self) -> int:
        """Rows that it passed on."""
        return int(self.stats.get("rows_out", 0))

    @property
    def drops(self) -> dict[str, int]:
        """Rows that it dropped by reason, most first."""
        found = {
            name.removeprefix(DROPPED).replace("_", " "): int(value)
            for name, value in self.stats.items()
            if name.startswith(DROPPED) and value
        }
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    @property
    def adds_up(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in == self.rows_out + sum(self.drops.values())


def lineage(artifacts: Iterable[Artifact]) -> list[Step]:
    """The given artifacts and all that they were made from, each once, sources first.

    An ancestor that was deleted or damaged since is left out.
    """
    steps: dict[tuple[str, str], Step | None] = {}

    def visit(artifact: Artifact) -> None:
        key = (artifact.kind, artifact.fingerprint)
        if key in steps:
            return
        steps[key] = None
        try:
            manifest = artifact.manifest
        except (FileNotFoundError, ManifestError):
            return
        root = artifact.url.rstrip("/").rsplit("/", 2)[0]
        for kind, fingerprint in sorted(manifest.get("inputs", {}).items()):
            visit(Artifact(kind, fingerprint, f"{root}/{kind}/{fingerprint}"))
        del steps[key]  # to stand behind its inputs
        steps[key] = Step(
            artifact=artifact,
            stage=manifest["stage"],
            seconds=float(manifest.get("seconds", 0.0)),
            stats=manifest.get("stats", {}),
            config=plain(manifest.get("config")),
            git_commit=manifest.get("git_commit") or "unknown",
        )

    for artifact in artifacts:
        visit(artifact)
    return [step for step in steps.values() if step is not None]
