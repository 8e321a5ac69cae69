"""The registry's champion changes hands where a score says so, on the same data, and else not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import promote
from pipelines.dag import embedded_tracking
from pipelines.dag.stage_log import StageLog
from pipelines.dag.tracking import Tracker, TrackingConfig
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Score


def published(root: Path, name: str, psnr: float, distance: float = 5.0, data: str = "d" * 16) -> str:
    """A model whose report has two headline scores with errors of 0.1, and one that is none."""
    for kind, inputs in (
        ("dataset", {}), ("tokenizer_report", {"dataset": data}), ("model", {"tokenizer_report": name})
    ):  # fmt: skip
        fingerprint = data if kind == "dataset" else name
        out = Workspace(str(root / kind / fingerprint), fingerprint)
        if kind == "tokenizer_report":
            scores = [
                Score(name="PSNR", value=psnr, images=9, error=0.1, headline=True),
                Score(name="D", value=distance, images=9, error=0.1, headline=True, higher_is_better=False),
                Score(name="aside", value=-psnr, images=9, error=0.1),
            ]
            Evaluation(title="T", lead="", scores=scores, figures=[], notes=[], metrics={}).write(out)
        out.publish({"stage": kind, "config": {}, "inputs": inputs, "stats": {}, "git_commit": "abc"})
    return str(root / "model" / name)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path / "runs"


def register(root: Path, *models: str) -> None:
    """As the stage `publish` does, one after the other."""
    tracker = Tracker(TrackingConfig(), str(root), {})
    for number, url in enumerate(models):
        log: StageLog = tracker.stage(
            f"publish{number}", tags={}, params={}, run_id=None, created=lambda run_id: None, inputs={}
        )
        log.model("reptok", url)
        tracker.finish_stage(log, {}, None, "FINISHED")
    tracker.close("FINISHED")


def champion(root: Path) -> str:
    from mlflow import MlflowClient

    client = MlflowClient(embedded_tracking.uri(str(root)))
    aliases = client.get_registered_model("reptok").aliases
    return str(client.get_model_version("reptok", aliases["champion"]).source).rsplit("/", 1)[1]


def test_the_champion_is_who_beats_the_last_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = published(root, "1" * 16, 18.0)
    register(root, one)
    assert promote.main([f"root={root}"]) == 0 and champion(root) == "1" * 16, "the first one"
    for name, psnr, distance, code, said in (
        ("2", 18.1, 5.0, 1, "does not beat"),  # within two standard errors of the difference
        ("3", 19.0, 6.0, 1, "worse   D: 5.00"),
        ("4", 19.0, 5.1, 0, "better   PSNR: 18.00"),
    ):
        register(root, published(root, name * 16, psnr, distance))
        assert promote.main([f"root={root}"]) == code
        assert said in capsys.readouterr().out
        assert champion(root) == (name if code == 0 else "1") * 16
    assert promote.main([f"root={root}"]) == 0
    assert "is the champion already" in capsys.readouterr().out


def test_other_data_do_not_compare(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    register(root, published(root, "1" * 16, 18.0))
    assert promote.main([f"root={root}"]) == 0
    register(root, published(root, "2" * 16, 30.0, data="e" * 16))
    assert promote.main([f"root={root}"]) == 2
    assert "different datasets" in capsys.readouterr().err and champion(root) == "1" * 16
    assert promote.main([f"root={root}", "force=true"]) == 0 and champion(root) == "2" * 16


def test_what_is_missing_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        ([f"root={root}"], "no runs are recorded"),
        (["until=shard"], "not until=shard"),
    ):
        assert promote.main(words) == 2
        assert said in capsys.readouterr().err
    register(root, published(root, "1" * 16, 18.0))
    assert promote.main([f"root={root}", "name=other"]) == 2
    assert "no model 'other' is registered" in capsys.readouterr().err
