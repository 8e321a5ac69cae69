"""Filters over tables of images: who is passed on, and that nothing but the pictures decides it."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from pipelines.crawl.phash import hashes
from pipelines.dag import shard_stage
from pipelines.dag import shards as shards_module
from pipelines.dag.shards import WorkerResources
from pipelines.dag.tally import ShardError
from pipelines.dag.workspace import Workspace
from pipelines.filters import thresholds, twins
from pipelines.filters.duplicates import Duplicates
from pipelines.filters.filter import Filter, Finding
from pipelines.filters.listed_hash import ListedHash
from pipelines.stages import filter_images
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.filter_images import ChosenFilters, FilterImages, FilterImagesConfig
from pipelines.stages.shard import ShardConfig, ShardDataset
from reptok.data.columns import HASHED_IMAGES, NAMED_KEYS, VERDICTS, read_table, write_table
from reptok.data.images import encode_jpeg
from reptok.data.shards import read_samples
from reptok.data.verify import verify

SIDE = 16
LISTED = "00ff00ff00ff00ff"


def scene(seed):
    """A picture of its own: coarse noise, whose hash is far from those of others."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.array(Image.fromarray(blocks).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def row(number, jpg, **facts):
    return {
        "key": f"{number:012d}",
        "url": f"http://{'ab'[number % 2]}.test/{number}",
        "text": f"photo number {number}",
        "status": "success",
        "jpg": jpg,
        "width": SIDE,
        "height": SIDE,
        "image_phash": LISTED,
        "whole_phash": LISTED,
        **hashes(jpg),
        **facts,
    }


def tables():
    """Three tables: a placeholder, a failure, twins in one table and over two, and pictures of their own."""
    file = {number: encode_jpeg(scene(number)) for number in range(12)}
    nearly = encode_jpeg(scene(5), quality=60)
    return [
        [row(0, file[0]), row(1, file[1], whole_phash="ff00ff00ff00ff00"),
         {**row(2, file[2]), "status": "failed_to_download", "reason": "http_404", "jpg": None},
         row(3, file[0]), row(4, file[4])],
        [row(5, file[5]), row(6, nearly), row(7, file[4]), row(8, file[8])],
        [row(9, encode_jpeg(scene(8), quality=60)), row(10, file[1]), row(11, file[11])],
    ]  # fmt: skip


def write_images(out, parts=None):
    for number, rows in enumerate(parts or tables()):
        with out.create(f"images-train-{number:05d}.parquet") as file:
            write_table(file, rows, HASHED_IMAGES)


@pytest.fixture
def images(make_artifact):
    return make_artifact("images", write_images)


def stage(**filters):
    return FilterImages(ChosenFilters(filters=filters))


BOTH = {"listed_hash": ListedHash(), "duplicates": Duplicates(distance=6)}


def rows_of(artifact, name, schema):
    with artifact.open(name) as file:
        return read_table(file, schema, name).to_pylist()


def verdicts_of(artifact):
    return [row for name in artifact.files("verdicts-*") for row in rows_of(artifact, name, VERDICTS)]


def reasons(artifact):
    return {int(row["key"]): row["reason"] for row in verdicts_of(artifact)}


def test_placeholders_and_twins_are_dropped_with_a_reason_and_every_row_is_counted(images, run_stage):
    made, stats = run_stage(stage(**BOTH), {"images": images})
    assert made.files() == [
        "excluded.parquet", *(f"verdicts-train-{number:05d}.parquet" for number in range(3))
    ]  # fmt: skip
    assert reasons(made) == {
        0: None, 1: "not_as_listed", 3: "duplicate", 4: None, 5: None, 6: "near_duplicate", 7: None, 8: None,
        9: None, 10: None, 11: None,
    }  # fmt: skip
    assert (stats["rows_in"], stats["rows_out"], stats["dropped_http_404"]) == (12, 8, 1)
    assert (stats["dropped_not_as_listed"], stats["dropped_duplicate"], stats["dropped_near_duplicate"]) == (
        1,
        1,
        1,
    )
    found = {int(row["key"]): row for row in verdicts_of(made)}
    assert found[3]["detail"] == f"{0:012d}" and found[6]["detail"] == f"{5:012d}"
    assert found[1]["listed_distance"] == 64 and found[0]["listed_distance"] == 0
    assert found[1]["nearest_distance"] is None  # what is refused is not looked at again
    assert {row["source"] for row in found.values()} == {"a.test", "b.test"}
    assert not any(row["quarantined"] for row in found.values())


def test_twins_in_other_tables_are_named_and_the_earlier_key_is_kept(images, run_stage):
    """7 is 4's file, 9 nearly 8's; 10 is the file of 1, which was refused and is nobody's twin."""
    made, stats = run_stage(stage(**BOTH), {"images": images})
    named = rows_of(made, "excluded.parquet", NAMED_KEYS)
    assert [(int(row["key"]), row["table"], row["reason"]) for row in named] == [
        (7, "images-train-00001", "near_duplicate"), (9, "images-train-00002", "near_duplicate"),
    ]  # fmt: skip
    assert stats["excluded"] == 2


def test_files_alone_are_compared_where_that_is_asked_for(images, run_stage):
    made, _ = run_stage(stage(duplicates=Duplicates(distance=None)), {"images": images})
    assert {key for key, reason in reasons(made).items() if reason} == {3}
    named = rows_of(made, "excluded.parquet", NAMED_KEYS)
    assert [(int(row["key"]), row["reason"]) for row in named] == [(7, "duplicate"), (10, "duplicate")]


def test_workers_and_order_change_no_byte(images, run_stage, tmp_path, digests, monkeypatch):
    """`run_stage` does the last table first; here they are done in order, and twins by shard jobs."""
    backwards, _ = run_stage(stage(**BOTH), {"images": images}, "backwards")
    forwards = functools.partial(shards_module.tally_of, here=True)
    monkeypatch.setattr(shard_stage, "tally_of", forwards)
    monkeypatch.setattr(twins, "HERE_ROWS", 0)
    ordered, _ = run_stage(stage(**BOTH), {"images": images}, "ordered")
    assert digests(backwards) == digests(ordered)


def test_a_run_that_was_killed_ends_with_the_same_bytes(images, run_stage, tmp_path, digests, monkeypatch):
    whole, stats = run_stage(stage(**BOTH), {"images": images}, "whole")
    out = Workspace(str(tmp_path / "killed"), "killed")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filter_images, "exclude_twins", killed)
        with pytest.raises(KeyboardInterrupt):
            stage(**BOTH).run({"images": images}, out)
    out.folder.remove("_scratch/shards/done/000001.json")  # one table is not done
    again, resumed = run_stage(stage(**BOTH), {"images": images}, "killed")
    assert digests(again) == digests(whole) and resumed == stats


@dataclass(frozen=True, kw_only=True)
class Knows(Filter):
    """A service that knows a file."""

    reads = ("sha256",)
    scores = ("match",)

    sha256: str

    @property
    def thresholds(self):
        return {"match": 0.5}

    def judge(self, row):
        known = row["sha256"] == self.sha256
        if known:
            return Finding(scores={"match": 1.0}, reason="known_hash", detail="list 7", quarantined=True)
        return Finding(scores={"match": 0.0})


def test_what_is_quarantined_is_passed_on_to_nobody_shown_nowhere_and_named(images, run_stage, monkeypatch):
    sha256 = tables()[1][3]["sha256"]
    shown = []

    def picture(_, name, key):
        shown.append(int(key))
        return Image.new("RGB", (SIDE, SIDE))

    monkeypatch.setattr(thresholds, "_picture", picture)
    monkeypatch.setattr(thresholds, "COLUMNS", 20)
    filters = {"service": Knows(sha256=sha256), "listed_hash": ListedHash()}
    made, stats = run_stage(stage(**filters), {"images": images})
    assert rows_of(made, "review.parquet", NAMED_KEYS) == [
        {"key": f"{8:012d}", "table": "images-train-00001", "reason": "known_hash", "detail": "list 7"}
    ]
    assert (stats["quarantined"], stats["dropped_known_hash"]) == (1, 1)
    assert 8 not in shown and set(shown) == {0, 1, 3, 4, 5, 6, 7, 9, 10, 11}
    captions, counted = run_stage(
        Caption(CaptionConfig(), judged=True), {"images": images, "verdicts": made}, "captions"
    )
    dataset, _ = run_stage(
        ShardDataset(ShardConfig(image_size=SIDE), judged=True),
        {"images": images, "verdicts": made, "captions": captions}, "dataset",
    )  # fmt: skip
    assert counted["dropped_known_hash"] == 1
    assert 8 not in {int(sample.key) for sample in samples(dataset)}


def samples(dataset):
    for name in dataset.files("*.tar"):
        with dataset.open(name) as file:
            yield from read_samples(file)


@dataclass(frozen=True, kw_only=True)
class Breaks(Filter):
    """Raises on some pictures."""

    reads = ("text",)

    on: tuple[str, ...]

    def judge(self, row):
        if row["text"] in self.on:
            raise RuntimeError("no answer")
        return Finding()


def test_a_picture_on_which_a_filter_raises_is_not_passed_on(images, run_stage):
    made, stats = run_stage(stage(breaks=Breaks(on=("photo number 5",))), {"images": images})
    assert {key for key, reason in reasons(made).items() if reason} == {5}
    assert stats["dropped_internal_runtimeerror"] == 1 and stats["rows_out"] == 10


def test_a_service_that_is_away_fails_the_stage(make_artifact, run_stage):
    parts = [[row(number, encode_jpeg(scene(number))) for number in range(6)]]
    images = make_artifact("images", lambda out: write_images(out, parts))
    with pytest.raises(ShardError, match="no answer"):
        run_stage(stage(breaks=Breaks(on=tuple(f"photo number {i}" for i in range(6)))), {"images": images})


@pytest.fixture
def dataset(images, run_stage):
    """The dataset of pictures that passed, its verdicts and the stages' stats."""
    verdicts, _ = run_stage(stage(**BOTH), {"images": images}, "verdicts")
    inputs = {"images": images, "verdicts": verdicts}
    captions, captioned = run_stage(Caption(CaptionConfig(), judged=True), inputs, "captions")
    config = ShardConfig(image_size=SIDE)
    made, stats = run_stage(ShardDataset(config, judged=True), {**inputs, "captions": captions}, "dataset")
    return made, captioned, stats


def test_who_comes_after_drops_for_the_same_reasons(dataset):
    made, captioned, stats = dataset
    for counted in (captioned, stats):
        assert (counted["rows_in"], counted["rows_out"]) == (12, 8)
        assert (
            counted["dropped_not_as_listed"]
            == counted["dropped_duplicate"]
            == counted["dropped_http_404"]
            == 1
        )
    assert {int(sample.key) for sample in samples(made)} == {0, 4, 5, 7, 8, 9, 10, 11}


def test_scores_stand_in_the_samples_and_in_the_tables(dataset):
    made, _, _ = dataset
    found = {int(sample.key): sample.info["scores"] for sample in samples(made)}
    assert found[0] == {"listed_distance": 0.0} and found[4]["nearest_distance"] > 6
    with made.open("train-00000.parquet") as file:
        table = read_table(file, VERDICTS, columns=["key", "listed_distance", "nearest_distance"]).to_pylist()
    assert table[0] == {"key": f"{0:012d}", "listed_distance": 0.0, "nearest_distance": None}
    assert verify(made.local_path()).faults == []


def test_trainings_pass_over_twins_in_other_shards(dataset):
    made, _, stats = dataset
    assert made.read_json("excluded.json") == {"train-00001": [1], "train-00002": [0]}  # keys 7 and 9
    assert stats["excluded"] == 2


def test_the_wanted_images_are_counted_among_those_that_passed(images, run_stage):
    """Of the first table five were downloaded and two passed."""
    from pipelines.captions.caption import CaptionerConfig

    verdicts, _ = run_stage(stage(**BOTH), {"images": images}, "verdicts")
    first = rows_of(verdicts, "verdicts-train-00000.parquet", VERDICTS)
    assert sum(row["kept"] for row in first) == 2

    def captions(wanted):
        config = CaptionConfig(captioner=CaptionerConfig(limit_samples=wanted))
        given = {"images": images, "verdicts": verdicts}
        return run_stage(Caption(config, judged=True), given, f"captions-{wanted}")

    few, stats = captions(2)
    assert (stats["rows_out"], stats["shards_beyond"], len(few.files())) == (2, 2, 1)
    more, stats = captions(3)
    assert stats["shards_beyond"] == 1
    sharded = ShardDataset(ShardConfig(image_size=SIDE), judged=True)
    given = {"images": images, "verdicts": verdicts, "captions": more}
    _, packed = run_stage(sharded, given, "few")
    assert packed["rows_out"] == stats["rows_out"], "the third table has no captions, and is no part of it"


def test_pictures_of_a_table_that_was_given_up_are_not_passed_on(images, run_stage, monkeypatch):
    judge = filter_images.JudgeImages.__call__

    def damaged(job, shard, out):
        if shard.index == 1:
            raise RuntimeError("no such disk")
        return judge(job, shard, out)

    monkeypatch.setattr(filter_images.JudgeImages, "__call__", damaged)
    config = ChosenFilters(filters=BOTH, workers=WorkerResources(max_failed=0.5))
    verdicts, stats = run_stage(FilterImages(config), {"images": images}, "verdicts")
    assert stats["dropped_quarantined"] == 4 and set(reasons(verdicts)) == {0, 1, 3, 4, 9, 10, 11}
    _, counted = run_stage(
        Caption(CaptionConfig(), judged=True), {"images": images, "verdicts": verdicts}, "captions"
    )
    assert counted["dropped_no_verdict"] == 4


def test_filters_look_in_their_order_and_none_of_two_may_give_one_score():
    config = FilterImagesConfig(listed_hash=ListedHash(), duplicates=Duplicates())
    chosen = config.chosen({"zebra": Breaks(on=()), "ape": Breaks(on=())})
    assert list(chosen) == ["ape", "zebra", "listed_hash", "duplicates"]
    with pytest.raises(ValueError, match="the score nearest_distance has a name that is taken"):
        stage(one=Duplicates(), other=Duplicates())


def test_another_threshold_is_another_artifact_and_workers_are_not():
    from pipelines.dag.fingerprint import fingerprint

    def print_of(workers=2, **filters):
        config = ChosenFilters(filters=filters, workers=WorkerResources(workers=workers))
        return fingerprint("filter_images", 1, config, {})

    assert print_of(a=Duplicates()) == print_of(8, a=Duplicates())
    assert len({print_of(a=Duplicates()), print_of(a=Duplicates(distance=3)), print_of(a=ListedHash())}) == 3


def test_the_page_of_a_threshold_has_both_sides(images, run_stage, monkeypatch):
    pages = {}
    monkeypatch.setattr(
        "pipelines.dag.stage_log.StageLog.picture", lambda _, name, picture: pages.update({name: picture})
    )
    run_stage(stage(listed_hash=ListedHash()), {"images": images})
    assert list(pages) == ["thresholds/listed_distance"]
    assert pages["thresholds/listed_distance"].height > 2 * 128
