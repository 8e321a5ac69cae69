"""Captions of imported pictures: beside them, in named fields, joined by key; and what a captioner reads."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from PIL import Image

from pipelines.captions.caption import CaptionerConfig
from pipelines.sources.captions import CaptionsConfig, JoinConfig
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.import_images import ImportImages, ImportImagesConfig, ImportToCaption
from pipelines.stages.index_captions import IndexCaptions
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.data.images import decode_image, encode_jpeg
from reptok.data.keys import MIN_VAL
from reptok.data.shards import read_samples


@pytest.fixture
def folder(tmp_path):
    """An empty one."""
    (tmp_path / "p").mkdir()
    return tmp_path / "p"


def picture(path, colour=(10, 200, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 12), colour).save(path)


def jpeg(colour=9):
    return encode_jpeg(np.full((12, 20, 3), colour, np.uint8))


def samples(dataset):
    found = {}
    for entries in dataset.read_json("index.json")["splits"].values():
        for entry in entries:
            with dataset.open(f"{entry['shard']}.tar") as file:
                found.update({sample.info["file"]: sample for sample in read_samples(file)})
    return found


def captions(run_stage, folder, name="out", inputs=None, **settings):
    config = ImportImagesConfig(
        folder=str(folder), image_size=8, val_fraction=0.0, captions=CaptionsConfig(**settings)
    )
    dataset, stats = run_stage(ImportImages(config), inputs or {}, name)
    return {file: sample.caption for file, sample in samples(dataset).items()}, stats


def tar(path, rows):
    with wds.TarWriter(str(path)) as sink:
        for key, row in rows.items():
            sink.write({"__key__": key, "jpg": jpeg(), **row})


# ---- beside, and by name


def test_json_beside_a_picture_tells_its_caption(folder, run_stage):
    for name in "abcd":
        picture(folder / f"{name}.png")
    (folder / "a.json").write_text(json.dumps({"caption": "from json", "long": "a longer one"}))
    (folder / "b.json").write_text(json.dumps({"caption": "from json"}))
    (folder / "b.txt").write_text("from text")
    (folder / "c.json").write_text("[1]")
    found, stats = captions(run_stage, folder)
    assert found == {"a.png": "from json", "b.png": "from text", "c.png": "", "d.png": ""}
    assert stats["without_caption"] == 2
    found, _ = captions(run_stage, folder, "long", fields=("long", "caption"))
    assert found == {"a.png": "a longer one", "b.png": "from json", "c.png": "", "d.png": ""}


def test_only_where_no_captioner_follows_is_it_said_that_pictures_have_no_caption(folder, run_stage, capsys):
    picture(folder / "a.png")
    config = ImportImagesConfig(folder=str(folder), image_size=8)
    run_stage(ImportToCaption(config), {}, "images")
    assert "no caption" not in capsys.readouterr().out
    run_stage(ImportImages(config), {}, "dataset")
    assert "1 pictures have no caption" in capsys.readouterr().out


def test_metadata_has_named_columns(folder, run_stage):
    picture(folder / "a.png")
    (folder / "metadata.csv").write_text("file_name,text,alt\na.png,no,yes\n")
    assert captions(run_stage, folder, fields=("alt",))[0] == {"a.png": "yes"}


def test_a_webdatasets_fields_are_named(folder, run_stage):
    tar(
        folder / "0.tar",
        {"a": {"txt": "alt-text", "json": {"llava": "described", "txt": "no"}}, "b": {"txt": "b"}},
    )
    assert captions(run_stage, folder)[0] == {"0.tar:a": "alt-text", "0.tar:b": "b"}
    found, _ = captions(run_stage, folder, "named", fields=("llava", "txt"))
    assert found == {"0.tar:a": "described", "0.tar:b": "b"}


def test_a_parquet_files_columns_are_named(folder, run_stage):
    table = pa.table({"jpg": [{"bytes": jpeg()}] * 2, "text": ["no"] * 2, "long": ["yes", None]})
    pq.write_table(table, folder / "0.parquet")
    found, _ = captions(run_stage, folder, fields=("long", "text"))
    assert list(found.values()) == ["yes", "no"]


# ---- joined


def index(run_stage, table, **names):
    return {"texts": run_stage(IndexCaptions(JoinConfig(table=(str(table),), **names)), {}, "texts")[0]}


def test_tars_are_joined_by_key_with_lines_of_json(folder, tmp_path, run_stage):
    tar(folder / "0.tar", {"00/0001": {"txt": "own"}, "0002": {"txt": "own"}, "0003": {"txt": "own"}})
    lines = [{"key": "0001", "short": "first"}, {"key": "0003", "short": "third"}, {"key": "9"}]
    with gzip.open(tmp_path / "t.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    join = {"key": "key", "text": "short"}
    inputs = index(run_stage, tmp_path / "t.jsonl.gz", **join)
    assert inputs["texts"].manifest["files"].keys() == {"texts.arrow", "names.npy"}
    joined = JoinConfig(table=(str(tmp_path / "t.jsonl.gz"),), **join)
    found, stats = captions(run_stage, folder, inputs=inputs, join=joined)
    assert found == {"0.tar:00/0001": "first", "0.tar:0002": "own", "0.tar:0003": "third"}
    assert stats["captions_joined"] == 2


def test_pictures_are_joined_by_path_and_rows_by_a_column(folder, tmp_path, run_stage):
    for name in ("a.png", "deep/b.jpg"):
        picture(folder / "flat" / name if "/" in name else folder / "flat" / "deep" / name)
    table = pa.table({"file": ["deep/a.png", "deep/b", "7"], "says": ["by path", "by stem", "by column"]})
    csv.write_csv(table, tmp_path / "t.csv")
    join = JoinConfig(table=(str(tmp_path / "t.csv"),), key="file", text="says", sample_key="id")
    inputs = index(run_stage, tmp_path / "t.csv", key="file", text="says")
    found, _ = captions(run_stage, folder / "flat", inputs=inputs, join=join)
    assert found == {"deep/a.png": "by path", "deep/b.jpg": "by stem"}
    (folder / "rows").mkdir()
    pq.write_table(pa.table({"image": [jpeg()] * 2, "id": [7, 8]}), folder / "rows" / "0.parquet")
    found, _ = captions(run_stage, folder / "rows", "rows", inputs=inputs, join=join)
    assert list(found.values()) == ["by column", ""]


def test_another_table_is_another_index(tmp_path):
    def inputs():
        return IndexCaptions(JoinConfig(table=(str(tmp_path / "t.csv"),))).config.listing

    (tmp_path / "t.csv").write_text("key,caption\na,b\n")
    before = inputs()
    assert inputs() == before
    (tmp_path / "t.csv").write_text("key,caption\na,b\nc,d\n")
    assert inputs() != before


def test_a_table_without_the_column_says_which_it_has(tmp_path, run_stage):
    (tmp_path / "t.csv").write_text("name,caption\na,b\n")
    with pytest.raises(ValueError, match=r"no column 'key' .*It has: name, caption.*captions\.join\.key="):
        index(run_stage, tmp_path / "t.csv")


# ---- for a captioner


def test_pictures_that_are_to_be_captioned_keep_their_split_classes_and_place(folder, run_stage):
    for number in range(12):
        picture(folder / "train" / "ant" / f"{number}.png")
    for number in range(3):
        picture(folder / "val" / "ant" / f"{number}.png")
    (folder / "train" / "bee").mkdir()
    (folder / "train" / "bee" / "0.png").write_bytes(b"no picture")
    (folder / "train" / "ant" / "3.txt").write_text("an ant <b>on</b> a leaf")
    config = ImportImagesConfig(folder=str(folder), image_size=8, samples_per_shard=5)
    images, stats = run_stage(ImportToCaption(config), {}, "images")
    assert images.kind == "images"
    assert (stats["rows_in"], stats["rows_out"], stats["dropped_unreadable"]) == (16, 15, 1)
    texts, _ = run_stage(Caption(CaptionConfig(captioner=CaptionerConfig())), {"images": images}, "captions")
    inputs = {"images": images, "captions": texts}
    dataset, _ = run_stage(ShardDataset(ShardConfig(image_size=8)), inputs, "dataset")
    index = dataset.read_json("index.json")
    assert index["class_names"] == ["ant", "bee"]  # though no bee could be read
    assert {split: sum(e["rows"] for e in entries) for split, entries in index["splits"].items()} == {
        "train": 12, "val": 3
    }  # fmt: skip
    found = samples(dataset)
    assert found["train/ant/3.png"].caption == "an ant on a leaf"
    assert found["val/ant/2.png"].info["label"] == 0
    direct, _ = run_stage(ImportImages(config), {}, "direct")
    assert {f: s.jpg for f, s in samples(direct).items()} == {f: s.jpg for f, s in found.items()}


# ---- small and transparent


def test_a_source_that_names_only_a_train_split_is_split_all_the_same(folder, run_stage):
    table = pa.table({"image": [jpeg()] * 200, "text": ["x"] * 200})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    config = ImportImagesConfig(folder=str(folder), image_size=8)
    dataset, _ = run_stage(ImportImages(config), {})
    assert sum(entry["rows"] for entry in dataset.read_json("index.json")["splits"]["val"]) == MIN_VAL


@pytest.mark.parametrize("extension", ["png", "webp"])
@pytest.mark.parametrize(("background", "pixel"), [("white", (255, 255, 255)), ("#203040", (32, 48, 64))])
def test_transparency_lies_on_the_stated_background(folder, run_stage, extension, background, pixel):
    Image.new("RGBA", (16, 16), (200, 0, 0, 0)).save(folder / f"a.{extension}", lossless=True)
    config = ImportImagesConfig(folder=str(folder), image_size=8, val_fraction=0.0, background=background)
    dataset, _ = run_stage(ImportImages(config), {}, f"{extension}{pixel[0]}")
    (sample,) = samples(dataset).values()
    assert np.abs(decode_image(sample.jpg).astype(int) - pixel).max() < 4


def test_a_background_that_is_no_colour_is_refused():
    with pytest.raises(ValueError, match="background=transparentish"):
        ImportImagesConfig(background="transparentish")
