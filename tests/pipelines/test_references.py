"""References of the whole configuration: found from anywhere, and significant by what they hold."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from pipelines.dag.planner import plan
from pipelines.dag.reference import HOME
from pipelines.workflows import build
from reptok.metrics.versions import VERSIONS

DATA = ["urls", "images", "captions", "dataset", "latents"]


def fingerprints(*overrides):
    config = load_config(Config, overrides)
    return {p.artifact.kind: p.artifact.fingerprint for p in plan(build(config), "memory://fingerprints")}


@pytest.fixture(scope="module")
def demo():
    return fingerprints()


def changed(demo, *overrides):
    """Kinds of artifacts that the overrides make anew."""
    return {kind for kind, found in fingerprints(*overrides).items() if demo[kind] != found}


def test_what_only_the_training_does_encodes_no_latents_again(demo):
    everything = ("encoder.trainable=everything", "train.decoder_first_steps=0")
    for overrides in (everything, ("vae.sample=false",), ("train.preservation_weight=0.3",)):
        found = changed(demo, *overrides)
        assert "tokenizer" in found and "latents" not in found


def test_the_place_of_weights_is_not_significant_and_their_contents_are(demo, tmp_path):
    copy = shutil.copytree(HOME / "zoo" / "encoder", tmp_path / "encoder")
    assert changed(demo, f"encoder.path={copy}") == set()
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config + " ")
    assert {"latents", "tokenizer"} <= changed(demo, f"encoder.path={copy}")
    assert not {"urls", "images", "captions", "dataset"} & changed(demo, f"encoder.path={copy}")


def test_a_captioners_name_stands_in_its_captions(demo, tmp_path):
    copy = shutil.copytree(HOME / "zoo" / "captioner", tmp_path / "captioner")
    assert "captions" in changed(demo, f"captioner.model.path={copy}")


def test_a_metric_that_means_something_else_is_measured_again(demo, monkeypatch):
    monkeypatch.setitem(VERSIONS, "knn", VERSIONS["knn"] + 1)
    assert changed(demo) == {"tokenizer_report", "generator_report", "model"}


@pytest.mark.parametrize(
    ("key", "report"),
    [
        ("tokenizer.inception_weights", "tokenizer_report"),
        ("generator.inception_weights", "generator_report"),
        ("tokenizer.lpips_weights", "tokenizer_report"),
        ("generator.clip_weights", "generator_report"),
    ],
)
def test_a_file_of_weights_counts_by_its_bytes(demo, key, report, tmp_path):
    one, same, other = (tmp_path / name for name in ("one.pth", "same.pth", "other.pth"))
    for file, content in ((one, b"1"), (same, b"1"), (other, b"2")):
        file.write_bytes(content)
    first, second, third = (fingerprints(f"evaluate.{key}={file}") for file in (one, same, other))
    assert first == second != third
    assert {kind for kind in demo if demo[kind] != first[kind]} == {report, "model"}
    assert {kind for kind in demo if first[kind] != third[kind]} == {report, "model"}


def test_the_same_run_is_planned_from_whatever_folder(tmp_path):
    """Fingerprints and all: a job of a cluster starts elsewhere than its author did."""

    def planned(folder):
        command = [
            sys.executable,
            str(HOME / "pipelines" / "plan.py"),
            "format=json",
            f"root={tmp_path}/runs",
        ]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

    assert planned(tmp_path) == planned(HOME) == planned(Path(HOME, "tests"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "captioner.model.path=zoo/captoiner",
            r"captioner.model.path: there is no folder 'zoo/captoiner' in ",
        ),
        ("captioner.model.path=zoo/captoiner", "did you mean zoo/captioner?"),
        ("vae.path=./vae", "vae.path: there is no folder './vae' in"),
        ("encoder.path=/nowhere/encoder", "encoder.path: there is no folder '/nowhere/encoder'"),
        ("text_encoder.path=zoo/reptok/README.md", "it is no folder"),
        (
            "evaluate.tokenizer.reference_tokenizer=zoo/nothing",
            "evaluate.tokenizer.reference_tokenizer: there is no",
        ),
        (
            "evaluate.tokenizer.inception_weights=i.pth",
            "evaluate_tokenizer.inception_weights: there is no 'i.pth'",
        ),
    ],
)
def test_the_plan_says_what_is_missing(override, message, tmp_path, capsys):
    from pipelines.plan import main

    assert main([override, f"root={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
