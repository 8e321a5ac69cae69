"""The whole workflow, small: every stage runs, the second run does nothing, every row is accounted for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import reptok
from tests.integration.conftest import artifact, manifest

STAGES = (
    "photograph_web", "select_urls", "download", "caption", "shard", "encode_latents", "train_tokenizer",
    "encode_tokens", "train_generator", "evaluate_tokenizer", "evaluate_generator", "publish",
)  # fmt: skip


def test_every_stage_publishes_and_the_summary_names_the_report(smoke):
    output = (smoke / "output.txt").read_text()
    for stage in STAGES:
        assert re.search(rf"^{stage}: done in", output, re.MULTILINE), stage
    report = artifact(smoke, "model") / "report.html"
    assert report.is_file() and "make ui" in output
    assert "http://" not in re.sub(r"http://www\.w3\.org\S*", "", _tags(report)), "the report loads something"


def _tags(report: Path) -> str:
    """What a browser would fetch: the values of src and href."""
    return " ".join(re.findall(r"(?:src|href)=\"(?!data:)([^\"]*)\"", report.read_text()))


def test_a_second_run_executes_nothing(smoke, program):
    before = {path: path.stat().st_mtime_ns for path in smoke.rglob("*") if path.is_file()}
    again = program("run_all.py", "experiment=smoke", f"root={smoke}")
    assert again.returncode == 0 and "nothing to do" in again.stdout
    assert ": run (" not in again.stdout and ": resume (" not in again.stdout
    assert {path: path.stat().st_mtime_ns for path in smoke.rglob("*") if path.is_file()} == before


def test_every_url_is_accounted_for(smoke):
    selected, downloaded = manifest(smoke, "urls")["stats"], manifest(smoke, "images")["stats"]
    dropped = sum(v for k, v in selected.items() if k.startswith("dropped_"))
    listed = pq.read_metadata(artifact(smoke, "web") / "coyo.parquet").num_rows
    assert selected["rows_in"] == listed == selected["rows_out"] + dropped
    assert downloaded["rows_in"] == downloaded["rows_out"] == selected["rows_out"]
    failed = {k: v for k, v in downloaded.items() if k.startswith("failed_")}
    assert downloaded["images_ok"] + sum(failed.values()) == downloaded["rows_out"] and len(failed) >= 4
    sharded = manifest(smoke, "dataset")["stats"]
    lost = sum(v for k, v in sharded.items() if k.startswith("dropped_"))
    assert sharded["rows_in"] == sharded["rows_out"] + lost
    assert sharded["rows_out"] == downloaded["images_ok"]


def test_every_planned_fault_met_its_expected_end(smoke):
    faults = json.loads((artifact(smoke, "web") / "faults.json").read_text())["rows"]
    listed = pq.read_table(artifact(smoke, "web") / "coyo.parquet", columns=["id", "url"]).to_pydict()
    url_of = dict(zip(map(str, listed["id"]), listed["url"], strict=True))
    tables = [pq.read_table(path) for path in sorted(artifact(smoke, "images").glob("images-*.parquet"))]
    ends = {row["url"]: row["reason"] for table in tables for row in table.to_pylist()}
    assert len({fault["fault"] for fault in faults.values()}) >= 15
    for row, fault in faults.items():
        if fault["fault"] == "duplicate_url":  # its original is downloaded
            continue
        end = ends.get(url_of[row], "never downloaded")
        wanted = "never downloaded" if fault["expected"].startswith("dropped_") else fault["expected"]
        assert (end or "success") == wanted, (fault, url_of[row])


def test_the_plan_names_what_a_change_makes_run_again(smoke, program):
    def actions(*overrides: str) -> dict[str, str]:
        shown = program("plan.py", "format=json", "experiment=smoke", f"root={smoke}", *overrides)
        return {s["name"]: s["action"] for s in json.loads(shown.stdout)["stages"]}

    assert set(actions().values()) == {"skip"}
    changed = actions("train.generator.steps=7")
    assert {name for name, action in changed.items() if action == "run"} == {
        "train_generator", "evaluate_generator", "publish",
    }  # fmt: skip
    assert set(actions("train.generator.log_every=1").values()) == {"skip"}


def test_tracking_has_one_parent_and_a_run_per_stage(smoke):
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{smoke}/mlflow.db")
    experiments = [e.experiment_id for e in client.search_experiments()]
    runs = {run.data.tags["mlflow.runName"]: run for run in client.search_runs(experiments)}
    assert set(STAGES) <= set(runs)
    parents = {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name in STAGES}
    assert len(parents) == 1 and None not in parents
    training = runs["train_tokenizer"]
    assert training.info.status == "FINISHED"
    assert len(client.get_metric_history(training.info.run_id, "train/loss")) == 3
    digests = {i.dataset.name: i.dataset.digest for i in training.inputs.dataset_inputs}
    assert {"dataset", "latents"} <= {name.split("/")[0] for name in digests}


def test_the_published_model_makes_pictures_without_the_program(smoke):
    pipe = reptok.load_pretrained(artifact(smoke, "model"))
    first = pipe("a photo of a cat", num_images=2, num_steps=2, decoder_steps=2, seed=3)
    again = pipe("a photo of a cat", num_images=2, num_steps=2, decoder_steps=2, seed=3)
    assert [image.size for image in first] == [(64, 64)] * 2
    assert [image.tobytes() for image in first] == [image.tobytes() for image in again]
    assert first[0].tobytes() != first[1].tobytes()


def test_verify_names_a_damaged_file(smoke, program):
    tar = artifact(smoke, "dataset") / "val-00000.tar"
    assert program("run_all.py", "experiment=smoke", f"root={smoke}", "verify=true").returncode == 0
    content = tar.read_bytes()
    try:
        tar.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = program("run_all.py", "experiment=smoke", f"root={smoke}", "verify=true")
    finally:
        tar.write_bytes(content)
    assert found.returncode == 1 and "val-00000.tar" in found.stdout + found.stderr
