"""What earlier artifacts have is taken over where all that it depends on is the same, and never by force."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from pipelines.captions.caption import CaptionerConfig
from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Earlier, ask, asked
from pipelines.dag.workspace import Workspace
from pipelines.stages.caption import Caption, CaptionConfig

MADE = [(Artifact("dataset", "d", "nowhere"), "train-00000.tar")]


def known(root: Path, **inputs: str) -> Earlier:
    urls = [str(path) for path in root.glob("*")]
    return Earlier("latents", "settings", inputs, urls).beside(MADE)


def test_rows_of_another_network_are_not_taken_over(tmp_path: Path) -> None:
    """The configuration calls a network that a stage makes by its kind: only its digest tells it."""
    made = {"settings": "settings", "rest": known(tmp_path, vae="1").rest, "shards": []}
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text("{}")
    (tmp_path / "old" / "made.json").write_text(json.dumps(made))
    found = known(tmp_path, vae="1", dataset="grown").newest()
    assert found and found.fingerprint == "old", "pictures are compared one by one"
    assert known(tmp_path, vae="2", dataset="grown").newest() is None
    assert known(tmp_path, vae="1", texts="corrected").newest() is None


def test_what_is_forced_takes_nothing_and_neither_does_the_attempt_that_goes_on_with_it(
    tmp_path: Path,
) -> None:
    stage = Caption(CaptionConfig(captioner=CaptionerConfig()))
    before = Workspace(str(tmp_path / "captions" / "before"), "before")
    before.folder.write_bytes("made.json", b"{}")
    out = Workspace(str(tmp_path / "captions" / "now"), "now")

    def urls(anew: bool) -> list[str]:
        ask(stage, {}, out, anew=anew)
        found = asked(out)
        assert found
        return list(found.urls)

    assert urls(anew=False) == [before.url]
    assert urls(anew=True) == []
    assert urls(anew=False) == []


def test_how_many_are_wanted_does_not_change_what_a_shard_is(tmp_path: Path) -> None:
    def settings(captioner: CaptionerConfig) -> str:
        out = Workspace(str(tmp_path / "captions" / str(captioner.limit_samples)), "x")
        ask(Caption(CaptionConfig(captioner=captioner)), {}, out)
        found = asked(out)
        assert found
        return found.settings

    config = CaptionerConfig()
    assert settings(config) == settings(replace(config, limit_samples=7))
    assert settings(config) != settings(replace(config, seed=9, limit_samples=8))
