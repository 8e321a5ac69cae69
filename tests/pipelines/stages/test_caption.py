"""The caption stage: one row per downloaded image, with its origin; the others counted by reason."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from examples.photographs.subjects import SUBJECTS
from examples.zoo.captioner import names
from examples.zoo.crops import CropPool
from pipelines.captions.caption import CaptionerConfig, drawn
from pipelines.captions.gates import GatesConfig
from pipelines.captions.images import CaptionImages
from pipelines.dag.tally import ShardError
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.configs import VisionLanguageConfig
from reptok.data.columns import CAPTIONS, IMAGES, read_table, write_table
from reptok.data.images import encode_jpeg
from reptok.data.shards import read_samples

ZOO = str(Path(__file__).parents[3] / "zoo" / "captioner")
MODEL = VisionLanguageConfig(
    path=ZOO, prompts=("describe the image in one sentence.", "what does the picture show?"),
    captions_per_image=2, max_new_tokens=24,
)  # fmt: skip
LOOSE = GatesConfig(max_share=1.0)
LOOKING = CaptionerConfig(mix=1.0, model=MODEL, gates=LOOSE, compute=ComputeConfig(batch_size=8))


def images(out):
    for shard in range(2):
        rows = [
            {
                "key": f"{shard * 300 + i:012d}",
                "text": f"<b>photo</b> {i}" if i % 3 else None,
                "status": "failed" if i % 10 == 0 else "success",
                "reason": ("HTTP 404" if i % 20 else "robots") if i % 10 == 0 else None,
            }
            for i in range(300)
        ]
        with out.create(f"images-train-{shard:05d}.parquet") as file:
            write_table(file, rows, IMAGES)


def crops(out, silent=()):
    """Two shards of nine training crops, one subject each; every third is for validation."""
    pool = CropPool.draw("train", 1, 5)
    for shard in range(2):
        rows = []
        for label in range(9 * shard, 9 * shard + 9):
            pixels = pool.pixels[label].permute(1, 2, 0).numpy()
            rows.append(
                {
                    "key": f"{label:012d}",
                    "text": "" if label in silent else f"Alt-text of {SUBJECTS[label].name}",
                    "status": "success", "jpg": encode_jpeg(pixels), "width": 64, "height": 64,
                    "subject": SUBJECTS[label].name, "label": label,
                    "split": "val" if label % 3 == 0 else "train",
                }
            )  # fmt: skip
        with out.create(f"images-train-{shard:05d}.parquet") as file:
            write_table(file, rows, IMAGES)


def table(artifact, *names):
    rows = []
    for name in names or artifact.files("*.parquet"):
        with artifact.open(name) as file:
            rows += read_table(file, CAPTIONS, name).to_pylist()
    return rows


def captioned(config):
    return Caption(CaptionConfig(captioner=config))


def test_every_success_has_a_caption_and_every_failure_is_counted(make_artifact, run_stage):
    source = make_artifact("images", images)
    captions, stats = run_stage(captioned(CaptionerConfig()), {"images": source})
    assert captions.files() == ["captions-train-00000.parquet", "captions-train-00001.parquet"]
    assert stats == {
        "rows_in": 600, "rows_out": 540, "dropped_robots": 30, "dropped_http_404": 30,
        "caption_alt_text": 360, "caption_fallback": 180, "instead_of_empty": 180,
    }  # fmt: skip
    rows = table(captions, "captions-train-00001.parquet")
    assert [row["key"] for row in rows] == [f"{300 + i:012d}" for i in range(300) if i % 10]
    nothing = dict.fromkeys(("model", "revision", "decoding", "reason")) | {"generated": []}
    photo = {"caption": "photo 1", "source": "alt_text", "alt_text": "photo 1"}
    assert rows[0] == {"key": f"{301:012d}", **photo, **nothing}
    fallback = {"caption": "", "source": "fallback", "alt_text": None}
    assert rows[2] == {"key": f"{303:012d}", **fallback, **nothing, "reason": "empty"}


def test_a_model_looks_and_its_words_keep_their_origin_down_to_the_dataset(make_artifact, run_stage):
    source = make_artifact("images", crops)
    captions, stats = run_stage(captioned(LOOKING), {"images": source}, "captions")
    rows = table(captions)
    assert stats == {"rows_in": 18, "rows_out": 18, "caption_model": 18, "generated": 36}
    assert sum(names(row["caption"], SUBJECTS[i]) for i, row in enumerate(rows)) >= 14
    row = rows[4]
    assert row["source"] == "model" and row["reason"] is None
    assert row["alt_text"] == f"Alt-text of {SUBJECTS[4].name}"
    assert [caption["prompt"] for caption in row["generated"]] == list(MODEL.prompts)
    assert row["caption"] == row["generated"][0]["text"]
    assert row["model"] == ZOO and row["revision"].startswith("sha256:")
    decoding = json.loads(row["decoding"])
    assert decoding["temperature"] == 0.0 and decoding["tile"] == 64 and decoding["precision"] == "float32"

    config = ShardConfig(image_size=64)
    dataset, _ = run_stage(ShardDataset(config), {"images": source, "captions": captions}, "dataset")
    with dataset.open("train-00000.tar") as file:
        sample = next(s for s in read_samples(file) if s.key == row["key"])
    assert sample.caption == row["caption"]
    assert sample.info["captions"] == row["generated"] and sample.info["alt_text"] == row["alt_text"]
    assert sample.info["caption_model"] == ZOO and sample.info["caption_revision"] == row["revision"]
    assert sample.info["caption_decoding"] == decoding and sample.info["caption_source"] == "model"
    assert "caption_reason" not in sample.info


def test_the_model_looks_where_the_mix_draws_its_caption_or_there_is_no_other(
    make_artifact, run_stage, monkeypatch
):
    """18 pictures, a third of them for validation, which takes alt-texts; two of those have none."""
    looked, ask = [], CaptionImages.__call__
    monkeypatch.setattr(
        CaptionImages, "__call__", lambda op, batch: looked.extend(batch["key"]) or ask(op, batch)
    )

    config = CaptionerConfig(**{**vars(LOOKING), "mix": 0.5, "val_mix": 0.0})
    captions, stats = run_stage(
        captioned(config), {"images": make_artifact("images", partial(crops, silent=(0, 3)))}
    )
    rows = table(captions)
    first = [row["key"] for i, row in enumerate(rows) if i % 3 and drawn(config.seed, row["key"]) < 0.5]
    blank = [rows[0]["key"], rows[3]["key"]]
    assert set(looked) == {*first, *blank} and 3 <= len(first) <= 9 and stats["generated"] == 2 * len(looked)
    assert [row["key"] for row in rows if row["generated"]] == sorted({*first, *blank})
    for row in rows:
        model = row["key"] in (*first, *blank)
        assert (row["source"], row["model"]) == (("model", ZOO) if model else ("alt_text", None))
        assert row["reason"] == ("empty" if row["key"] in blank else None)


def test_captioning_ends_with_the_table_where_training_stops_reading(make_artifact, run_stage):
    """Tables of 270 images each; what lies behind the first is captioned by nobody's wish, and left out."""
    spread = make_artifact("images", images, "spread")
    whole, _ = run_stage(captioned(CaptionerConfig()), {"images": spread}, "all")
    assert [len(table(whole, name)) for name in whole.files()] == [270, 270]
    few, stats = run_stage(captioned(CaptionerConfig(limit_samples=270)), {"images": spread}, "few")
    assert (stats["rows_out"], stats["shards_beyond"]) == (270, 1)
    assert few.files() == whole.files()[:1] and table(few, few.files()[0]) == table(whole, whole.files()[0])
    _, stats = run_stage(captioned(CaptionerConfig(limit_samples=271)), {"images": spread}, "more")
    assert (stats["rows_out"], stats["shards_beyond"]) == (540, 0)


def test_one_caption_for_many_images_is_refused_and_the_alt_text_stands(make_artifact, run_stage):
    def same(out):
        pixels = np.zeros((64, 64, 3), np.uint8)
        rows = [
            {"key": f"{i:012d}", "text": f"alt-text {i}", "status": "success", "jpg": encode_jpeg(pixels)}
            for i in range(8)
        ]
        with out.create("images-train-00000.parquet") as file:
            write_table(file, rows, IMAGES)

    config = CaptionerConfig(**{**vars(LOOKING), "gates": GatesConfig(max_share=0.5, min_repeats=2)})
    captions, stats = run_stage(captioned(config), {"images": make_artifact("images", same)})
    assert stats["refused_repeated"] == 16 and stats["instead_of_repeated"] == 8
    for number, row in enumerate(table(captions)):
        found = (row["caption"], row["source"], row["reason"])
        assert found == (f"alt-text {number}", "alt_text", "repeated")


def test_an_image_that_cannot_be_read_keeps_its_alt_text_and_the_reason(make_artifact, run_stage):
    def damaged(out):
        rows = [
            {"key": "0", "text": "a red barn", "status": "success", "jpg": b"<html>"},
            {"key": "1", "text": "a lake", "status": "success", "jpg": None},
        ]
        with out.create("images-train-00000.parquet") as file:
            write_table(file, rows, IMAGES)

    captions, stats = run_stage(captioned(LOOKING), {"images": make_artifact("images", damaged)})
    found = [(row["caption"], row["source"], row["reason"], row["model"]) for row in table(captions)]
    assert found == [
        ("a red barn", "alt_text", "undecodable", None),
        ("a lake", "alt_text", "no_image", None),
    ]
    assert stats["failed_undecodable"] == stats["failed_no_image"] == 1


def test_a_model_that_always_fails_fails_the_shard(make_artifact, run_stage, monkeypatch):
    def fail(*_):
        raise RuntimeError("device lost")

    monkeypatch.setattr(CaptionImages, "_ask", fail)
    with pytest.raises(ShardError, match=r"captioner failed on 9 of 9 images.*max_failed"):
        run_stage(captioned(LOOKING), {"images": make_artifact("images", crops)})


def test_same_input_gives_same_bytes(make_artifact, run_stage, digests):
    source = make_artifact("images", crops)
    first, second = (
        digests(run_stage(captioned(LOOKING), {"images": source}, name)[0]) for name in ("a", "b")
    )
    assert first == second


def test_table_without_alt_texts_is_refused(make_artifact, run_stage):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(out):
        with out.create("images-train-00000.parquet") as file:
            pq.write_table(pa.table({"key": ["0"], "status": ["success"], "reason": ["x"]}), file)

    with pytest.raises(
        RuntimeError, match=r"images-train-00000\.parquet has no column 'text'.*rerun `download`"
    ):
        run_stage(captioned(CaptionerConfig()), {"images": make_artifact("images", write)})


def test_weights_that_are_not_there_are_named_before_anything_runs(make_artifact, run_stage):
    config = CaptionerConfig(mix=1.0, model=VisionLanguageConfig(path="./nowhere"))
    with pytest.raises(FileNotFoundError, match=r"captioner\.model\.path: there is no folder '\./nowhere'"):
        run_stage(captioned(config), {"images": make_artifact("images", images)})


HOSTILE = ["&#" + "9" * 4400, "@" * 1600, "a" + "\u0301\u0316" * 50_000, "<script" * 5000, "&#x" + "f" * 9000]


def test_hostile_alt_texts_have_their_rows(make_artifact, run_stage):
    def hostile(out):
        rows = [
            {"key": f"{i:012d}", "text": f"{HOSTILE[i % 5]} {i}" if i % 6 else "a fox", "status": "success"}
            for i in range(30)
        ]
        with out.create("images-train-00000.parquet") as file:
            write_table(file, rows, IMAGES)

    captions, stats = run_stage(captioned(CaptionerConfig()), {"images": make_artifact("images", hostile)})
    assert stats["rows_in"] == stats["rows_out"] == 30
    assert [row["caption"] for row in table(captions)][::6] == ["a fox"] * 5


def test_an_unforeseen_fault_of_one_alt_text_stays_its_own(make_artifact, run_stage, monkeypatch):
    from pipelines.stages import caption as stage

    clean = stage.clean_alt_text

    def faulty(text, config):
        if text and text.endswith((" 11", " 22")):
            raise ZeroDivisionError("unforeseen")
        return clean(text, config)

    monkeypatch.setattr(stage, "clean_alt_text", faulty)
    _, stats = run_stage(captioned(CaptionerConfig()), {"images": make_artifact("images", images)})
    assert stats["instead_of_internal_ZeroDivisionError"] == 4 and stats["rows_out"] == 540
