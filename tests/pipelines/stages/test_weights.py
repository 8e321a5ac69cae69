"""Where weights come from: an artifact, a folder, or a hub, which is asked for its own models only."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.dag.reference import HOME
from pipelines.stages.weights import digest, fetch, resolve
from reptok.configs import AutoencoderConfig, EncoderConfig, TextEncoderConfig


def test_an_artifact_takes_the_place_of_the_path(make_artifact):
    artifact = make_artifact("vae", lambda out: out.write_bytes("config.json", b"{}"))
    config = resolve({"vae": artifact}, "vae", AutoencoderConfig(path="./nowhere", scale=0.5))
    assert config == AutoencoderConfig(path=str(artifact.local_path()), scale=0.5)


def test_a_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "zoo" / "vae").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve({}, "vae", AutoencoderConfig(path="zoo/vae")).path == str(tmp_path / "zoo" / "vae")


def test_names_that_are_no_folders_stay_as_they_are():
    open_clip = TextEncoderConfig(kind="open_clip", path="ViT-L-14/openai")
    for config in (AutoencoderConfig(path="stabilityai/sd-vae-ft-mse"), EncoderConfig(path=None), open_clip):
        assert resolve({}, "model", config) == config
        assert digest(config, "model.path") == ""


def test_the_hub_is_asked_once_and_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"vae\.path=nobody/nothing means a model of the hub.*set vae\.path"):
        fetch(AutoencoderConfig(path="nobody/nothing"), "vae.path")
    assert time.monotonic() - began < 5


def test_the_hub_is_not_asked_for_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked")
    )
    fetch(AutoencoderConfig(path="zoo/autoencoder"), "vae.path")
    fetch(EncoderConfig(path=None), "encoder.path")


@pytest.mark.parametrize("path", ["./vae", "/no/such/vae", "~/no-such-vae", "vae", "a/b/c"])
def test_what_can_only_be_a_folder_must_be_there(path):
    with pytest.raises(FileNotFoundError, match=rf"vae\.path: there is no folder '{path}'"):
        resolve({}, "vae", AutoencoderConfig(path=path))


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
            "evaluate.tokenizer.inception_weights: there is no 'i.pth'",
        ),
    ],
)
def test_the_plan_says_what_is_missing(override, message, tmp_path, capsys):
    from pipelines.plan import main

    assert main([override, f"root={tmp_path}"]) == 2
    assert message in capsys.readouterr().err
