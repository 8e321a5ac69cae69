"""A stage that was begun with a commit names it wherever its configuration names the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.captions.caption import CaptionerConfig
from pipelines.dag.pinned import models_of, pinned
from pipelines.dag.workspace import Workspace
from pipelines.filters.clip_similarity import ClipSimilarity
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.filter_images import ChosenFilters, FilterImages
from reptok.configs import VisionLanguageConfig

CAPTION = Caption(
    CaptionConfig(captioner=CaptionerConfig(model=VisionLanguageConfig(path="a/vlm", revision="main")))
)
FILTER = FilterImages(ChosenFilters(filters={"clip": ClipSimilarity(path="hf://a/clip")}))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What the hub was asked for."""
    found: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None = None, **_: object) -> str:
        found.append((name, revision))
        return f"/cache/snapshots/c{len(found)}"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return found


def test_the_commit_takes_the_place_of_a_branch(tmp_path: Path, asked: list[tuple[str, str | None]]) -> None:
    commits = models_of(CAPTION, Workspace(str(tmp_path / "captions")))
    assert commits == {"captioner.model.path": "c1"} and asked == [("a/vlm", "main")]
    model = pinned(CAPTION, commits).config.captioner.model
    assert (model.path, model.revision) == ("a/vlm", "c1")
    assert CAPTION.config.captioner.model.revision == "main"


def test_where_no_revision_stands_beside_a_path_it_stands_behind_it(
    tmp_path: Path, asked: list[tuple[str, str | None]]
) -> None:
    out = Workspace(str(tmp_path / "verdicts"))
    commits = models_of(FILTER, out)
    assert commits == {"filters.clip.path": "c1"} and asked == [("a/clip", None)]
    assert pinned(FILTER, commits).config.filters["clip"].path == "hf://a/clip@c1"
    assert models_of(FILTER, out) == commits and len(asked) == 1, "it is asked once, and kept to"
