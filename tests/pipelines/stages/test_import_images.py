"""The import_images stage: folders of pictures become datasets with classes and splits, losses counted."""

import json
import os
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from examples.photographs.coyo import CoyoConfig, make_corpus
from examples.photographs.photograph_folder import PhotographFolder
from examples.photographs.subjects import SUBJECTS
from pipelines.sources.layouts import open_source
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from reptok.data.images import decode_image, encode_jpeg
from reptok.data.index import SPLITS
from reptok.data.keys import place_of
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


def test_colours_are_kept_as_the_configuration_says(tmp_path, run_stage):
    red_beside_blue = np.zeros((8, 8, 3), np.uint8)
    red_beside_blue[:, ::2, 0], red_beside_blue[:, 1::2, 2] = 255, 255
    for number in range(8):
        picture(tmp_path / "folder" / f"{number}.png")
    Image.fromarray(red_beside_blue).save(tmp_path / "folder" / "0.png")
    far = {}
    for subsampling in ("4:2:0", "4:4:4"):
        dataset, _ = make(
            run_stage, tmp_path / "folder", subsampling[2:].replace(":", ""), subsampling=subsampling
        )
        decoded = decode_image(samples(dataset)["0.png"][1].jpg).astype(int)
        far[subsampling] = np.abs(decoded - red_beside_blue).mean()
    assert far["4:4:4"] < 8 < 60 < far["4:2:0"]


def test_keys_mix_the_classes_and_ascend_over_the_shards(folder, run_stage):
    dataset, _ = make(run_stage, folder, val_fraction=0.0)
    found = sorted((s.key, s.info["label"], s.info["file"]) for _, s in samples(dataset).values())
    assert all(key == sha256(file.encode()).hexdigest()[:24] for key, _, file in found) and len(found) == 24
    shards = [entry["shard"] for entry in dataset.read_json("index.json")["splits"]["train"]]
    in_order = [key for shard in shards for key in keys_of(dataset, shard)]
    assert in_order == [key for key, _, _ in found] and len(shards) == 3
    assert 2 < sum(label for _, label, _ in found[:12]) < 10


def keys_of(dataset, shard):
    with dataset.open(f"{shard}.tar") as file:
        return [sample.key for sample in read_samples(file)]


def test_each_split_has_full_shards_and_a_folder_that_grows_moves_no_sample(tmp_path, run_stage):
    splits = {}
    for count, name in ((120, "before"), (160, "after")):
        for number in range(count):
            picture(tmp_path / "p" / f"{number}.png")
        dataset, _ = make(run_stage, tmp_path / "p", name)
        splits[name] = {path: (split, s.key) for path, (split, s) in samples(dataset).items()}
        for entries in dataset.read_json("index.json")["splits"].values():
            assert all(entry["rows"] == 10 for entry in entries[:-1]) and len(entries) > 1
    assert splits["after"].items() > splits["before"].items() and len(splits["before"]) == 120


@pytest.mark.parametrize("layout", ["parquet", "webdataset"])
def test_of_few_files_rows_are_held_out_and_of_many_whole_files(layout, tmp_path, run_stage):
    for files in (3, 20):
        folder = tmp_path / str(files)
        folder.mkdir()
        for number in range(files):
            shown = [jpeg_bytes(5 * i) for i in range(12)]
            if layout == "parquet":
                pq.write_table(
                    pa.table({"image": shown, "text": ["x"] * 12}), folder / f"{number:02d}.parquet"
                )
            else:
                with wds.TarWriter(str(folder / f"{number:02d}.tar")) as sink:
                    for i, jpg in enumerate(shown):
                        sink.write({"__key__": f"{i}", "jpg": jpg, "txt": "x"})
        dataset, stats = make(run_stage, folder, f"out-{files}", samples_per_shard=5)
        found = samples(dataset)
        assert stats["rows_out"] == stats["rows_in"] == len(found) == 12 * files
        of_file = {}
        for path, (split, sample) in found.items():
            of_file.setdefault(path.partition(":")[0], set()).add(split)
            assert sample.key == sha256(path.encode()).hexdigest()[:24]
        assert (set(map(len, of_file.values())) == {1}) == (files == 20)
        places = {split: [place_of(s.key) for own, s in found.values() if own == split] for split in SPLITS}
        assert files == 20 or max(places["val"]) < min(places["train"])
        index = dataset.read_json("index.json")["splits"]
        assert sum(entry["rows"] for entry in index["val"]) >= (12 if files == 20 else 2)
        assert files == 20 or all(e["rows"] >= 5 for e in index["val"][:-1])
        for entry in [*index["train"], *index["val"]]:
            keys = keys_of(dataset, entry["shard"])
            assert keys == sorted(keys)


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
        return open_source(str(folder)).digest()

    before = digest()
    (folder / "cat" / "notes.md").write_text("still not a picture, but longer")
    assert digest() == before
    (folder / "cat" / "3.txt").write_text("a caption")
    assert digest() != before
    captioned = digest()
    picture(folder / "cat" / "new.png")
    assert digest() != captioned


def test_the_demos_photographs_are_labelled_and_keep_their_split(run_stage):
    web = CoyoConfig(images=120, seed=3)
    pictures, written = run_stage(PhotographFolder(web), {}, "pictures")
    assert written["rows_out"] == 120
    dataset, stats = run_stage(
        ImportImages(ImportImagesConfig(image_size=8, folder="artifact:pictures")), {"pictures": pictures}
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
        open_source(str(folder))


def test_folder_that_may_not_be_read_is_named(folder):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (folder / "cat").chmod(0)
    try:
        with pytest.raises(PermissionError, match=r"cannot read .*cat"):
            open_source(str(folder))
    finally:
        (folder / "cat").chmod(0o755)


@pytest.mark.parametrize(
    "settings", [{"val_fraction": 1.0}, {"samples_per_shard": 0}, {"subsampling": "4:1:0"}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        ImportImagesConfig(folder="x", **settings)


# ---- captions


def test_metadata_files_give_captions_and_their_broken_lines_are_told(tmp_path, run_stage, capsys):
    for name in "abcd":
        picture(tmp_path / "p" / "train" / f"{name}.png")
    (tmp_path / "p" / "train" / "metadata.jsonl").write_text(
        '{"file_name": "a.png", "text": "one  line\\n of text"}\n'
        '{"file_name": "../../a.png", "text": "x"}\n{]\n'
        '{"file_name": "b.png"}\n{"file_name": "gone.png", "text": "y"}\n'
    )
    (tmp_path / "p" / "metadata.csv").write_text('file_name,caption\ntrain/c.png,"a, b"\n')
    dataset, stats = make(run_stage, tmp_path / "p")
    captions = {path: sample.caption for path, (_, sample) in samples(dataset).items()}
    assert captions == {
        f"train/{k}.png": v for k, v in zip("abcd", ["one line of text", "", "a, b", ""], strict=True)
    }
    assert stats["source_faults"] == 4 and stats["rows_out"] == 4
    told = capsys.readouterr().out
    for line in (
        "line 2: '../../a.png' is no path inside",
        "line 3: no JSON object",
        "line 4: no text",
        "gone",
    ):
        assert line in told


def test_pipes_and_devices_are_not_read(tmp_path, run_stage):
    picture(tmp_path / "p" / "a.png")
    os.mkfifo(tmp_path / "p" / "b.png")
    os.symlink("/dev/zero", tmp_path / "p" / "c.png")
    os.symlink("/dev/zero", tmp_path / "p" / "a.txt")
    os.mkfifo(tmp_path / "p" / "d.txt")
    picture(tmp_path / "p" / "d.png")
    dataset, stats = make(run_stage, tmp_path / "p", val_fraction=0.0)
    assert (stats["rows_in"], stats["rows_out"]) == (4, 1)
    assert (stats["dropped_unreadable"], stats["dropped_outside_folder"]) == (1, 2)
    assert samples(dataset)["d.png"][1].caption == ""


def test_file_names_that_are_no_text_are_imported(tmp_path, run_stage):
    picture(tmp_path / "p" / "a.png")
    os.rename(tmp_path / "p" / "a.png", os.fsencode(tmp_path / "p") + b"/\xff.png")
    dataset, _ = make(run_stage, tmp_path / "p", val_fraction=0.0)
    assert list(samples(dataset)) == ["\ufffd.png"]


# ---- ImageNet


def test_imagenet_as_its_challenge_hands_it_out(tmp_path, run_stage):
    data = tmp_path / "p" / "ILSVRC" / "Data" / "CLS-LOC"
    for wnid, colour in (("n02", (200, 0, 0)), ("n01", (0, 0, 200)), ("n03", (0, 200, 0))):
        picture(data / "train" / wnid / f"{wnid}_1.JPEG", colour)
    picture(data / "val" / "ILSVRC2012_val_00000001.JPEG", (0, 0, 200))
    picture(data / "test" / "ILSVRC2012_test_00000001.JPEG")
    names = "n01 tench, Tinca tinca\nn02 crane\nn03 crane\n"
    (tmp_path / "p" / "LOC_synset_mapping.txt").write_text(names)
    solution = "ImageId,PredictionString\nILSVRC2012_val_00000001,n01 85 1 499 272 \n"
    (tmp_path / "p" / "LOC_val_solution.csv").write_text(solution)
    dataset, stats = make(run_stage, tmp_path / "p")
    assert stats["rows_out"] == 4
    assert dataset.read_json("index.json")["class_names"] == ["tench", "crane (n02)", "crane (n03)"]
    found = {
        path.rpartition("/")[2]: (split, s.info["label"], s.caption)
        for path, (split, s) in samples(dataset).items()
    }
    assert found == {
        "n02_1.JPEG": ("train", 1, "crane (n02)"),
        "n01_1.JPEG": ("train", 0, "tench"),
        "n03_1.JPEG": ("train", 2, "crane (n03)"),
        "ILSVRC2012_val_00000001.JPEG": ("val", 0, "tench"),
    }
    (tmp_path / "p" / "LOC_val_solution.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"LOC_val_solution\.csv is missing"):
        make(run_stage, tmp_path / "p", "again")


def jpeg_bytes(colour):
    return encode_jpeg(np.full((12, 20, 3), colour, np.uint8))


def hub_table(rows, names=("tench", "goldfish")):
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    images = [{"bytes": data, "path": "/etc/passwd"} for data, _ in rows]
    return pa.table({"image": images, "label": [label for _, label in rows]}, schema=schema)


def test_imagenet_as_parquet_files(tmp_path, run_stage, digests):
    data = tmp_path / "p" / "data"
    data.mkdir(parents=True)
    rows = [(jpeg_bytes((200, 0, 0) if i % 2 else (0, 0, 200)), i % 2) for i in range(25)]
    rows[7] = (None, 1)  # its path names a file, which is not opened
    rows[9] = (rows[9][0], 2)
    pq.write_table(hub_table(rows[:20]), data / "train-00000-of-00002.parquet", row_group_size=3)
    pq.write_table(hub_table(rows[20:]), data / "train-00001-of-00002.parquet")
    pq.write_table(hub_table([(jpeg_bytes(9), -1)] * 2), data / "validation-00000-of-00001.parquet")
    pq.write_table(hub_table([(jpeg_bytes(9), -1)]), data / "test-00000-of-00001.parquet")
    dataset, stats = make(run_stage, tmp_path / "p", samples_per_shard=8)
    assert (stats["rows_in"], stats["rows_out"]) == (27, 25)
    assert (stats["dropped_no_image"], stats["dropped_label_out_of_range"]) == (1, 1)
    index = dataset.read_json("index.json")
    assert index["class_names"] == ["tench", "goldfish"]
    assert sum(entry["rows"] for entry in index["splits"]["val"]) == 2
    found = samples(dataset)
    split, sample = found["data/train-00000-of-00002.parquet:19"]
    assert (split, sample.info["label"], sample.caption) == ("train", 1, "goldfish")
    assert np.abs(decode_image(sample.jpg).astype(int) - (200, 0, 0)).max() < 6
    assert "label" not in found["data/validation-00000-of-00001.parquet:1"][1].info
    assert open_source(str(tmp_path / "p")).num_classes == 2
    again, _ = make(run_stage, tmp_path / "p", "again", samples_per_shard=8)
    assert digests(again) == digests(dataset)


def test_parquet_files_with_texts_and_named_classes(tmp_path, run_stage):
    (tmp_path / "p").mkdir()
    table = pa.table({"image": [jpeg_bytes(9)] * 3, "text": ["a\tb", None, "c"], "label": ["y", "x", "y"]})
    pq.write_table(table, tmp_path / "p" / "0.parquet")
    dataset, _ = make(run_stage, tmp_path / "p", val_fraction=0.0)
    found = {f: (s.caption, s.info["label"], s.info["subject"]) for f, (_, s) in samples(dataset).items()}
    assert found == {
        "0.parquet:0": ("a b", 1, "y"), "0.parquet:1": ("x", 0, "x"), "0.parquet:2": ("c", 1, "y")
    }  # fmt: skip


# ---- WebDataset


def test_an_existing_webdataset_is_imported(tmp_path, run_stage):
    (tmp_path / "p" / "val").mkdir(parents=True)
    for name, split, count in (("0.tar", "train", 4), ("val/0.tar", "val", 2)):
        with wds.TarWriter(str(tmp_path / "p" / name)) as sink:
            for i in range(count):
                sink.write({"__key__": f"{split}/pic_{i}", "jpg": jpeg_bytes(40 * i), "txt": f"text {i}",
                            "json": {"label": i % 2}, "pyd": {"never": "unpickled"}})  # fmt: skip
    dataset, stats = make(run_stage, tmp_path / "p", val_fraction=0.0)
    assert (stats["rows_in"], stats["rows_out"]) == (6, 6)
    found = samples(dataset)
    split, sample = found["val/0.tar:val/pic_1"]
    assert (split, sample.caption, sample.info["label"]) == ("val", "text 1", 1)
    assert found["0.tar:train/pic_3"][0] == "train"
    assert dataset.read_json("index.json")["class_names"] == ["0", "1"]
    assert open_source(str(tmp_path / "p")).num_classes is None
