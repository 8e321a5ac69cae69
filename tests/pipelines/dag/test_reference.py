"""A path is a folder or a model of the hub, and which of the two does not depend on what a worker can see."""

import pytest

from pipelines.dag import reference
from pipelines.dag.reference import find, folder_digest, refer, required


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
    assert refer("hf://zoo/captioner", "key").path == "zoo/captioner"
    assert refer("hf://zoo/captioner", "key").digest == ""


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
