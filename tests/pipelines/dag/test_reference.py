"""A path is a folder or a model of the hub, and which of the two does not depend on what a worker can see."""

import json
import time
from dataclasses import dataclass, field

import pytest

from pipelines.dag import reference
from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import plain
from pipelines.dag.reference import artifacts_of, fetch, find, folder_digest, located, refer, required
from reptok.folder import local_folder


@dataclass(frozen=True, kw_only=True)
class Network:
    path: str = field(default="", metadata={"reference": "network"})
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Named:
    path: str = field(metadata={"reference": "network", "named": True})


@dataclass(frozen=True, kw_only=True)
class Parts:
    network: Network = field(default_factory=Network)
    second: Network | None = None
    weights: str = field(default="", metadata={"reference": "file"})


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A working folder and a repository beside it."""
    here, home = tmp_path / "here", tmp_path / "home"
    for folder in (here, home / "zoo" / "captioner", home / "zoo" / "encoder"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(reference, "HOME", home)
    return here, home


def test_a_folder_of_the_repository_is_found_from_elsewhere(places):
    here, home = places
    assert refer("zoo/captioner", "key").folder == home / "zoo" / "captioner"
    (here / "zoo" / "captioner").mkdir(parents=True)
    assert refer("zoo/captioner", "key").folder == here / "zoo" / "captioner"
    assert find("nothing") is None


def test_hub_ids_are_what_names_no_folder(places):
    assert refer("OpenGVLab/InternVL3-1B-hf", "key").hub == "OpenGVLab/InternVL3-1B-hf"
    assert refer("hf://zoo/captioner", "key").identity == {"hub": "zoo/captioner"}
    assert located(Network(path="hf://zoo/captioner"), {}).path == "zoo/captioner"
    assert located(Network(path="zoo/captioner"), {}).path == str(places[1] / "zoo" / "captioner")


def test_names_that_another_library_understands_stay_as_they_are(places):
    config = Network(path="ViT-L-14/openai", kind="open_clip")
    assert located(config, {}) == config and located(Network(), {}) == Network()
    assert plain(config, significant_only=True) == {"path": "ViT-L-14/openai", "kind": "open_clip"}
    fetch(config, "path")


def test_inputs_follow_from_references(places):
    config = Parts(network=Network(path="artifact:vae"), second=Network(path="artifact:vae"))
    assert artifacts_of(config, "stage") == ("vae",)
    assert artifacts_of(Parts(), "stage") == ()
    artifact = Artifact("vae", "fingerprint", str(places[0]))
    assert located(config.network, {"vae": artifact}).path == str(artifact.local_path())
    assert plain(config, significant_only=True)["network"]["path"] == {"artifact": "vae"}
    with pytest.raises(FileNotFoundError, match=r"stage\.network\.path: there is no folder"):
        artifacts_of(Parts(network=Network(path="./nowhere")), "stage")
    with pytest.raises(FileNotFoundError, match=r"stage\.weights: there is no"):
        artifacts_of(Parts(weights="a.pth"), "stage")


def test_contents_are_significant_and_the_place_is_recorded(places):
    (places[1] / "zoo" / "encoder" / "config.json").write_text("{}")
    digest = folder_digest(places[1] / "zoo" / "encoder")
    config = Parts(network=Network(path="zoo/encoder"))
    assert plain(config)["network"]["path"] == {"digest": digest, "path": "zoo/encoder"}
    assert plain(config, significant_only=True)["network"]["path"] == {"digest": digest}
    named = plain(Named(path="zoo/encoder"), significant_only=True)
    assert named == {"path": {"digest": digest, "path": "zoo/encoder"}}


def test_the_hub_is_asked_once_and_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    began = time.monotonic()
    with pytest.raises(OSError, match=r"vae\.path=nobody/nothing means a model of the hub.*set vae\.path"):
        fetch(Network(path="nobody/nothing"), "vae.path")
    assert time.monotonic() - began < 5


def test_the_hub_is_not_asked_for_a_folder(monkeypatch, places):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked")
    )
    assert fetch(Network(path="zoo/captioner"), "path") is None
    assert fetch(Network(path="artifact:captioner"), "path") is None


def test_the_commit_that_the_hub_gave_is_what_all_machines_ask_for(monkeypatch, tmp_path):
    """A branch may have moved when the last machine asks."""
    place = tmp_path / "models--somebody--captioner" / "snapshots" / "c0ffee"
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(place))
    assert fetch(Network(path="somebody/captioner"), "path") == "c0ffee"


def test_a_revision_may_stand_behind_a_hub_id(monkeypatch, places):
    asked = []

    def download(name, revision=None, **_):
        asked.append((name, revision))
        return f"/cache/snapshots/{revision}"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch(Network(path="somebody/vae@v1.2"), "path") == "v1.2"
    assert local_folder("somebody/vae@v1.2").name == "v1.2"
    assert asked == [("somebody/vae", "v1.2")] * 2
    known = [plain(Network(path=path), significant_only=True) for path in ("a/b", "a/b@c1", "a/b@c2")]
    assert len({json.dumps(found) for found in known}) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("zoo/captoiner", "did you mean zoo/captioner"),
        ("zoo/other", "hf://zoo/other"),
        ("captioner", "name a folder, or a model of the hub as owner/name"),
        ("./zoo/captioner", "there is no folder"),
        ("a/b/c", "there is no folder"),
        ("hf://captioner", "owner/name"),
        ("", "there is no folder ''"),
        ("zoo/notes.txt", "it is no folder"),
    ],
)
def test_what_means_a_folder_must_be_there(places, path, message):
    (places[1] / "zoo" / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match=r"vae\.path: ") as caught:
        refer(path, "vae.path")
    assert message in str(caught.value)


def test_a_missing_file_names_its_key(places):
    with pytest.raises(FileNotFoundError, match=r"weights: there is no 'a\.pth' in .*here or in .*home"):
        required("a.pth", "weights")


def test_a_digest_is_of_what_the_folder_holds(places):
    folder = places[1] / "zoo" / "encoder"
    (folder / "config.json").write_text("{}")
    first = folder_digest(folder)
    (folder / "notes.md").write_text("read by nobody")
    assert folder_digest(folder) == first
    (folder / "config.json").write_text("[]")
    second = folder_digest(folder)
    (folder / "config.json").rename(folder / "other.json")
    assert len({first, second, folder_digest(folder)}) == 3
