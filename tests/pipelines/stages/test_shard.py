"""The shard stage: successes become samples, drops are counted, the split follows the key or the source."""

import io
import json

import numpy as np
import pytest
import webdataset as wds

from pipelines.dag.artifact import Artifact
from pipelines.dag.tally import ShardError
from pipelines.dag.workspace import Workspace
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.data.columns import CAPTIONS, IMAGES, SAMPLES, read_table, write_table
from reptok.data.images import encode_jpeg
from reptok.data.shards import read_samples

ROWS = 40
CONFIG = ShardConfig(image_size=8)
SPLITS = ("val", "train")


def jpeg(number):
    return encode_jpeg(np.full((8, 8, 3), number, np.uint8))


def write_images(out, *, labelled=False, splits=SPLITS):
    for shard, split in enumerate(splits):
        rows = []
        for i in range(ROWS):
            number = shard * ROWS + i
            failed = i % 8 == 0
            rows.append(
                {
                    "key": f"{number:012d}",
                    "url": f"http://photos.test/{number}",
                    "status": "failed" if failed else "success",
                    "reason": "http_404" if failed else None,
                    "jpg": None if failed else jpeg(number),
                    "width": None if failed else 8,
                    "height": None if failed else 8,
                    "label": number % 3 if labelled else None,
                    "subject": ["ant", "bee", "cat"][number % 3] if labelled else None,
                    "split": split,
                }
            )
        with out.create(f"images-{split}-{shard:05d}.parquet") as file:
            write_table(file, rows, IMAGES)


def write_captions(out, without=(), splits=SPLITS):
    for shard, split in enumerate(splits):
        rows = [
            {"key": f"{number:012d}", "caption": f"photo {number}", "source": "alt_text"}
            for number in range(shard * ROWS, (shard + 1) * ROWS)
            if number % ROWS % 8 and number not in without
        ]
        with out.create(f"captions-{split}-{shard:05d}.parquet") as file:
            write_table(file, rows, CAPTIONS)


@pytest.fixture
def make_dataset(make_artifact, run_stage):
    def make(name="out", config=CONFIG, without=(), splits=SPLITS, **images):
        inputs = {
            "images": make_artifact(
                "images", lambda out: write_images(out, splits=splits, **images), f"images-{name}"
            ),
            "captions": make_artifact(
                "captions", lambda out: write_captions(out, without, splits), f"captions-{name}"
            ),
        }
        return run_stage(ShardDataset(config), inputs, name)

    return make


def samples(dataset, split):
    for entry in dataset.read_json("index.json")["splits"].get(split, []):
        with dataset.open(f"{entry['shard']}.tar") as file:
            yield from read_samples(file)


def test_every_row_is_a_sample_or_a_counted_drop(make_dataset):
    dataset, stats = make_dataset(without={5, 50})
    found = {sample.key: sample for split in ("train", "val") for sample in samples(dataset, split)}
    assert stats["rows_in"] == 2 * ROWS
    assert stats["dropped_http_404"] == 10
    assert stats["dropped_no_caption"] == 2
    assert stats["rows_out"] == len(found) == 68
    assert sorted(found) == [f"{n:012d}" for n in range(2 * ROWS) if n % ROWS % 8 and n not in {5, 50}]
    sample = found[f"{13:012d}"]
    assert sample.jpg == jpeg(13)
    assert sample.caption == "photo 13"
    assert sample.info["url"] == "http://photos.test/13"
    assert "label" not in sample.info


def test_a_tables_samples_are_a_shard_of_its_split_and_number(make_dataset):
    dataset, stats = make_dataset()
    assert [int(sample.key) for sample in samples(dataset, "val")] == [n for n in range(ROWS) if n % 8]
    assert (stats["rows_val"], stats["rows_train"]) == (35, 35)
    assert dataset.files("*.tar") == ["train-00001.tar", "val-00000.tar"]


def test_a_table_that_names_no_split_is_refused(make_dataset):
    with pytest.raises(ShardError, match=r"images-test-00001.parquet does not name its split.*train, val"):
        make_dataset(splits=("train", "test"))


def test_shards_without_samples_are_empty_and_a_split_without_samples_is_absent(make_dataset):
    dataset, _ = make_dataset(without=range(ROWS))
    index = dataset.read_json("index.json")
    assert list(index["splits"]) == ["train"]
    with dataset.open("val-00000.tar") as file:
        assert list(read_samples(file)) == []
    dataset, _ = make_dataset("b", without=range(ROWS), splits=("train", "train"))
    assert [e["rows"] for e in dataset.read_json("index.json")["splits"]["train"]] == [0, 35]


def test_index_tells_the_files_truth(make_dataset):
    dataset, _ = make_dataset(labelled=True)
    index = dataset.read_json("index.json")
    assert (index["schema_version"], index["image_size"]) == (1, 8)
    assert index["class_names"] == ["ant", "bee", "cat"]
    for split, entries in index["splits"].items():
        for entry in entries:
            listed = dataset.manifest["files"][f"{entry['shard']}.tar"]
            assert (entry["bytes"], entry["sha256"]) == (listed["size"], listed["sha256"])
            with dataset.open(f"{entry['shard']}.parquet") as file:
                table = read_table(file, SAMPLES)
            assert table.num_rows == entry["rows"]
            with dataset.open(f"{entry['shard']}.tar") as file:
                tar = list(read_samples(file))
            assert table.column("key").to_pylist() == [sample.key for sample in tar]
            assert table.column("caption").to_pylist() == [sample.caption for sample in tar]
            assert table.column("label").to_pylist() == [sample.info["label"] for sample in tar]
        assert split in ("train", "val")


def test_one_label_with_two_names_is_refused(make_artifact, run_stage):
    def images(out):
        rows = [
            {
                "key": str(i),
                "status": "success",
                "jpg": jpeg(i),
                "width": 8,
                "height": 8,
                "label": 0,
                "subject": name,
            }
            for i, name in enumerate(["ant", "bee"], 1)
        ]
        with out.create("images-train-00000.parquet") as file:
            write_table(file, rows, IMAGES)

    def captions(out):
        with out.create("captions-train-00000.parquet") as file:
            write_table(file, [{"key": key, "caption": "x", "source": "alt_text"} for key in "12"], CAPTIONS)

    inputs = {"images": make_artifact("images", images), "captions": make_artifact("captions", captions)}
    with pytest.raises(ValueError, match="label 0 stands for 'ant' and for 'bee'"):
        run_stage(ShardDataset(ShardConfig(image_size=8)), inputs)


def test_images_of_another_size_are_an_error_that_says_so(make_dataset):
    with pytest.raises(ShardError, match=r"image is 8 x 8, but shard\.image_size is 16"):
        make_dataset(config=ShardConfig(image_size=16))


def test_same_input_gives_same_bytes(make_dataset, digests):
    assert digests(make_dataset("a")[0]) == digests(make_dataset("b")[0])


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


FILES_WRITTEN = 2 * 2 + 1


@pytest.mark.parametrize("files_before_the_kill", range(FILES_WRITTEN))
def test_killed_before_any_file_the_next_run_ends_with_the_same_bytes(
    files_before_the_kill, make_dataset, run_stage, digests, tmp_path, monkeypatch
):
    reference, _ = make_dataset("reference")
    inputs = {
        kind: Artifact(kind, kind, str(tmp_path / f"{kind}-reference")) for kind in ("images", "captions")
    }
    create, names = Workspace.create, []

    def fragile(self, name):
        names.append(name)
        if len(names) > files_before_the_kill:
            raise Killed
        return create(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "create", fragile)
        with pytest.raises(Killed):
            run_stage(ShardDataset(CONFIG), inputs, "killed")
    assert not (tmp_path / "killed" / "manifest.json").exists()
    again, _ = run_stage(ShardDataset(CONFIG), inputs, "killed")
    assert digests(again) == digests(reference)


def test_webdataset_reads_the_shards(make_dataset):
    dataset, _ = make_dataset()
    path = str(dataset.local_path("train-00001.tar"))
    read = list(wds.WebDataset(path, shardshuffle=False))
    expected = list(read_samples(io.BytesIO(dataset.read_bytes("train-00001.tar"))))
    assert [sample["__key__"] for sample in read] == [sample.key for sample in expected]
    assert [sample["jpg"] for sample in read] == [sample.jpg for sample in expected]
    assert [json.loads(sample["json"]) for sample in read] == [sample.info for sample in expected]
