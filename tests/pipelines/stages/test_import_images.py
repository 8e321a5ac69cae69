"""The import_images stage: folders of pictures become datasets with classes and splits, losses counted."""

import os

import numpy as np
import pytest
from PIL import Image

from pipelines.demo.coyo import CoyoConfig, make_corpus
from pipelines.demo.subjects import SUBJECTS
from pipelines.stages.import_images import ImportImages, ImportImagesConfig, list_pictures, listing_digest
from pipelines.stages.photograph_folder import PhotographFolder
from reptok.data.images import decode_image
from reptok.data.shards import read_samples


def picture(path, colour=(10, 200, 30), size=(20, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for number in range(12):
        picture(root / "cat" / f"{number}.png", (200, 0, 0))
        picture(root / "polar_bear" / "deep" / f"{number}.jpg", (0, 0, 200))
    (root / "cat" / "notes.md").write_text("not a picture")
    (root / ".hidden").mkdir()
    picture(root / ".hidden" / "x.png")
    return root


def samples(dataset):
    found = {}
    for split, entries in dataset.read_json("index.json")["splits"].items():
        for entry in entries:
            with dataset.open(f"{entry['shard']}.tar") as file:
                found.update({sample.info["file"]: (split, sample) for sample in read_samples(file)})
    return found


def make(run_stage, root, name="out", **settings):
    settings = {"image_size": 8, "val_fraction": 0.25, "samples_per_shard": 10} | settings
    return run_stage(ImportImages(ImportImagesConfig(folder=str(root), **settings)), {}, name)


def test_subfolders_are_classes(folder, run_stage):
    dataset, stats = make(run_stage, folder)
    assert (stats["rows_in"], stats["rows_out"], stats["dropped_unreadable"]) == (24, 24, 0)
    assert dataset.read_json("index.json")["class_names"] == ["cat", "polar_bear"]
    found = samples(dataset)
    assert len(found) == 24
    _, cat = found["cat/3.png"]
    _, bear = found["polar_bear/deep/3.jpg"]
    assert (cat.info["label"], cat.info["subject"], cat.caption) == (0, "cat", "cat")
    assert (bear.info["label"], bear.info["subject"], bear.caption) == (1, "polar_bear", "polar bear")
    assert (cat.info["width"], cat.info["height"], cat.info["original_width"]) == (8, 8, 20)
    pixels = decode_image(cat.jpg)
    assert pixels.shape == (8, 8, 3)
    assert np.abs(pixels.astype(int) - (200, 0, 0)).max() < 6


def test_keys_mix_the_classes_and_ascend_over_the_shards(folder, run_stage):
    dataset, _ = make(run_stage, folder, val_fraction=0.0)
    found = sorted((sample.key, sample.info["label"]) for _, sample in samples(dataset).values())
    assert [key for key, _ in found] == [f"{i:012d}" for i in range(24)]
    assert 2 < sum(label for _, label in found[:12]) < 10


def test_train_and_val_folders_are_the_splits(tmp_path, run_stage):
    for split, count in (("train", 6), ("val", 3)):
        for number in range(count):
            picture(tmp_path / "p" / split / "cat" / f"{number}.png")
    picture(tmp_path / "p" / "train" / "dog" / "1.png")
    dataset, _ = make(run_stage, tmp_path / "p")
    assert {path: split for path, (split, _) in samples(dataset).items()} == {
        path: path.split("/")[0] for path in samples(dataset)
    }
    assert dataset.read_json("index.json")["class_names"] == ["cat", "dog"]
    assert [e["rows"] for e in dataset.read_json("index.json")["splits"]["val"]] == [3]


def test_flat_folder_has_no_classes_and_takes_captions_from_beside(tmp_path, run_stage):
    picture(tmp_path / "p" / "a.png")
    picture(tmp_path / "p" / "b.JPEG")
    (tmp_path / "p" / "a.txt").write_text("a green\nwall \n")
    dataset, _ = make(run_stage, tmp_path / "p", val_fraction=0.0)
    found = samples(dataset)
    assert found["a.png"][1].caption == "a green wall"
    assert found["b.JPEG"][1].caption == ""
    assert "label" not in found["a.png"][1].info
    assert dataset.read_json("index.json")["class_names"] is None


def test_unreadable_pictures_are_dropped_and_counted(folder, run_stage):
    (folder / "cat" / "3.png").write_bytes(b"not a picture")
    (folder / "cat" / "4.png").write_bytes((folder / "cat" / "4.png").read_bytes()[:40])
    dataset, stats = make(run_stage, folder)
    assert (stats["rows_in"], stats["rows_out"], stats["dropped_unreadable"]) == (24, 22, 2)
    assert "cat/3.png" not in samples(dataset)


def test_same_folder_gives_same_bytes(folder, run_stage, digests):
    assert digests(make(run_stage, folder, "a")[0]) == digests(make(run_stage, folder, "b")[0])


def test_listing_digest_changes_with_the_pictures(folder):
    def digest():
        return listing_digest(str(folder), list_pictures(str(folder)))

    before = digest()
    (folder / "cat" / "notes.md").write_text("still not a picture, but longer")
    assert digest() == before
    picture(folder / "cat" / "new.png")
    assert digest() != before


def test_the_demos_photographs_are_labelled_and_keep_their_split(run_stage):
    web = CoyoConfig(images=120, seed=3)
    pictures, written = run_stage(PhotographFolder(web), {}, "pictures")
    assert written["rows_out"] == 120
    dataset, stats = run_stage(
        ImportImages(ImportImagesConfig(image_size=8), ("pictures",)), {"pictures": pictures}
    )
    assert (stats["rows_out"], stats["dropped_unreadable"]) == (120, 0)
    assert dataset.read_json("index.json")["class_names"] == sorted(subject.name for subject in SUBJECTS)
    splits = {row["url"].rpartition("/")[2]: row["split"] for row in make_corpus(web).table.to_pylist()}
    found = samples(dataset)
    assert {split for split, _ in found.values()} == {"train", "val"}
    for file, (split, sample) in found.items():
        folder, subject, name = file.split("/")
        assert (split, subject) == (folder, sample.info["subject"]) and splits[name] == split


def test_absent_folder_is_named(run_stage, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        make(run_stage, tmp_path / "nowhere")


def test_folder_without_pictures_says_what_was_looked_for(run_stage, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.gif").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no pictures \(looked for \.jpg, "):
        make(run_stage, tmp_path / "empty")


def test_pictures_beside_class_folders_are_refused(folder):
    picture(folder / "stray.png")
    with pytest.raises(ValueError, match=r"beside its class folders, stray\.png for one"):
        list_pictures(str(folder))


def test_folder_that_may_not_be_read_is_named(folder):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (folder / "cat").chmod(0)
    try:
        with pytest.raises(PermissionError, match=r"cannot read .*cat"):
            list_pictures(str(folder))
    finally:
        (folder / "cat").chmod(0o755)


@pytest.mark.parametrize("settings", [{"val_fraction": 1.0}, {"samples_per_shard": 0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ImportImagesConfig(folder="x", **settings)
