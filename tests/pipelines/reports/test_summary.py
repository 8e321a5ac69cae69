import io
import os
import subprocess

import pytest
from rich.console import Console

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import HOME
from pipelines.dag.stage import StageResult
from pipelines.dag.tracking import TrackingConfig
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Score
from pipelines.reports.summary import describe, markdown, shown_at, summarise


def printed(results):
    console = Console(file=io.StringIO(), width=140, highlight=False)
    summarise(results, console, curves="make ui")
    return console.file.getvalue()


def test_the_summary_shows_stages_scores_and_where_to_look(tmp_path):
    out = Workspace(str(tmp_path / "report"), "0" * 16)
    score = Score(name="PSNR", value=17.52, unit="dB", baselines={"subject mean": 14.1, "VAE alone": 28.0})
    Evaluation(title="Tokenizer", lead="", scores=[score], figures=[], notes=[], metrics={}).write(out)
    out.publish({"stage": "evaluate_tokenizer"})
    model = Workspace(str(tmp_path / "model"), "0" * 16)
    results = [
        StageResult(name="select_urls", action="skip", stats={"rows_in": 2100.0, "rows_out": 2000.0,
                                                              "dropped_opt_out": 100.0}),
        StageResult(name="evaluate_tokenizer", action="run", seconds=75, stats={},
                    artifact=Artifact("tokenizer_report", "0" * 16, out.url)),
        StageResult(name="publish", action="run", seconds=2, stats={},
                    artifact=Artifact("model", "0" * 16, model.url)),
    ]  # fmt: skip
    text = printed(results)
    assert "2,100 rows in, 2,000 out, 100 dropped: 100 opt out" in text
    assert "1 min 15 s" in text and "17.5 dB" in text and "subject mean 14.1 dB, VAE alone 28.0 dB" in text
    assert model.url_of("report.html") in text and "make ui" in text
    page = markdown(results)
    assert "| PSNR | **17.5 dB** | subject mean 14.1 dB, VAE alone 28.0 dB |" in page
    assert model.url_of("report.html") in page and markdown(results[:1]) == ""


def test_a_failure_is_named_and_markup_in_it_stays_text():
    text = printed([StageResult(name="download", action="failed", stats={}, error="disk full [/dev/x]")])
    assert "download: disk full [/dev/x]" in text and "Report" not in text


def test_stats_are_said_in_a_few_words():
    assert describe({}) == ""
    assert describe({"val_loss": 0.51234}) == "val loss 0.5123"
    assert describe({"parameters": 167235.0}) == "parameters 167,235"


@pytest.mark.parametrize(
    "name",
    ["runs", "a b", "größe", "it's", 'a"b', "$HOME", "a;b&c", "a#b", "(x)[y]{z}", "a=b", "`id`"],
)
def test_the_command_opens_the_root_of_this_run(name, tmp_path):
    """As a shell and make take it apart."""
    root = str(tmp_path / name)
    makefile = tmp_path / "Makefile"
    makefile.write_text("ui:\n\t@printf '%s\\n' $(ARGS)\n")
    said = shown_at(TrackingConfig(), root)
    alone = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(["sh", "-c", said], cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.stdout == f"root={root}\n", (said, done.stderr)


def test_where_the_curves_are_is_said_only_if_there_are_any(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert shown_at(TrackingConfig(enabled=False), "runs") == ""
    assert shown_at(TrackingConfig(), str(HOME / "runs")) == "make ui"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:PLANTED@mlflow.example.org")
    assert shown_at(TrackingConfig(), "runs") == "https://***@mlflow.example.org"
