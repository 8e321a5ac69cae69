"""Where weights come from: an artifact before a folder before a hub."""

import pytest

from pipelines.stages.weights import is_local, resolve
from reptok.configs import AutoencoderConfig, EncoderConfig


def test_an_artifact_takes_the_place_of_the_path(make_artifact):
    artifact = make_artifact("vae", lambda out: out.write_bytes("config.json", b"{}"))
    config = resolve({"vae": artifact}, "vae", AutoencoderConfig(path="./nowhere", scale=0.5))
    assert config == AutoencoderConfig(path=str(artifact.local_path()), scale=0.5)
    assert is_local(config)


def test_a_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    (tmp_path / "zoo" / "vae").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve({}, "vae", AutoencoderConfig(path="zoo/vae")).path == str(tmp_path / "zoo" / "vae")


def test_hub_ids_and_built_in_encoders_stay_as_they_are():
    for config in (AutoencoderConfig(path="stabilityai/sd-vae-ft-mse"), EncoderConfig(path=None)):
        assert resolve({}, "model", config) is config
        assert not is_local(config)


@pytest.mark.parametrize("path", ["./vae", "/no/such/vae", "~/no-such-vae", "vae", "a/b/c"])
def test_what_can_only_be_a_folder_must_be_there(path):
    with pytest.raises(FileNotFoundError, match=f"no folder '{path}' for the weights of 'vae'"):
        resolve({}, "vae", AutoencoderConfig(path=path))
