"""What the record of runs keeps of pictures: grids, reports and messages beside the curves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.dag.storage import LocalFolder, open_folder
from pipelines.purging.named import every_run

KEPT = ("manifest.json",)


class RunPictures:
    """Files of MLflow runs that made, or read, what is purged.

    Args:
        uri: of the tracking server or database.
        root: the artifact store; a local record outside of it belongs to another.
    """

    def __init__(self, uri: str, root: str) -> None:
        from mlflow import MlflowClient

        self._uri = uri
        self._client = MlflowClient(tracking_uri=uri)
        folder = open_folder(root)
        self._root = folder.path().resolve() if isinstance(folder, LocalFolder) else None

    def of(self, fingerprints: set[str], problems: list[str]) -> list[tuple[str, str]]:
        """Runs with something to delete, and the place of each one's files.

        Args:
            fingerprints: of what is purged. Runs that read the artifact of such a run count, too.
            problems: takes a line for what lies elsewhere.
        """
        runs, tainted = list(every_run(self._client)), set(fingerprints)
        while heirs := {_made(run) for run in runs if _read(run) & tainted} - tainted - {""}:
            tainted |= heirs
        found = []
        for run in runs:
            if _made(run) in tainted or _read(run) & tainted:
                if self._is_elsewhere(run.info.artifact_uri):
                    problems.append(
                        f"run {run.info.run_id}: its files lie outside of the store, {run.info.artifact_uri}"
                    )
                elif list(self._files(run.info.artifact_uri)):
                    found.append((run.info.run_id, run.info.artifact_uri))
        return found

    def delete(self, place: str) -> None:
        """Delete the files of a run, but its manifest."""
        for path in self._files(place):
            self._repository(place).delete_artifacts(path)

    def _files(self, place: str) -> Iterator[str]:
        for entry in self._repository(place).list_artifacts() or ():
            if entry.path not in KEPT:
                yield entry.path

    def _repository(self, place: str) -> Any:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(place, tracking_uri=self._uri)

    def _is_elsewhere(self, place: str) -> bool:
        folder = open_folder(place) if "://" not in place or place.startswith("file:") else None
        if not isinstance(folder, LocalFolder):
            return False
        here = Path(folder.url).resolve()
        return self._root is None or not here.is_relative_to(self._root)


def _made(run: Any) -> str:
    return str(run.data.tags.get("fingerprint", ""))


def _read(run: Any) -> set[str]:
    return {value for key, value in run.data.tags.items() if key.startswith("input.")}
