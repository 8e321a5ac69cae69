"""The demo's corpus keeps COYO's schema, tells the truth about its images, and is the same every time."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from PIL import Image

from examples.photographs.coyo import SCHEMA, Corpus, CoyoConfig, make_corpus
from examples.photographs.faults import FAULTS, place
from examples.photographs.subjects import CLASS_NAMES
from pipelines.crawl.phash import perceptual_hash

CONFIG = CoyoConfig(images=72, fault_fraction=0.5, val_fraction=0.25)
COYO = """
    id url text width height image_phash text_length word_count num_tokens_bert num_tokens_gpt num_faces
    clip_similarity_vitb32 clip_similarity_vitl14 nsfw_score_opennsfw2 nsfw_score_gantman watermark_score
    aesthetic_score_laion_v2
"""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return make_corpus(CONFIG)


def test_the_columns_are_coyos_and_three_of_our_own(corpus: Corpus) -> None:
    assert corpus.table.schema == SCHEMA
    assert [*COYO.split(), "split", "label", "subject"] == SCHEMA.names
    assert all(corpus.table[name].null_count == 0 for name in SCHEMA.names)
    assert len(set(corpus.table["id"].to_pylist())) == corpus.table.num_rows == 108


def test_the_values_of_sound_rows_are_those_of_their_images(corpus: Corpus) -> None:
    sound = [row for row in corpus.table.to_pylist() if str(row["id"]) not in corpus.faults["rows"]]
    assert len(sound) == 72
    for row in sound:
        image = Image.open(io.BytesIO(corpus.files[place(row["url"])]))
        assert image.format == "JPEG"
        assert image.size == (row["width"], row["height"])
        assert row["text_length"] == len(row["text"])
        assert row["word_count"] == len(row["text"].split())
        assert CLASS_NAMES[row["label"]] == row["subject"]
        original = int(row["image_phash"], 16) ^ int(perceptual_hash(image), 16)
        assert bin(original).count("1") <= 8  # JPEG moves a few bits


def test_every_subject_has_its_share_of_each_split(corpus: Corpus) -> None:
    sound = [row for row in corpus.table.to_pylist() if str(row["id"]) not in corpus.faults["rows"]]
    counts = Counter((row["subject"], row["split"]) for row in sound)
    assert counts == {(name, split): n for name in CLASS_NAMES for split, n in (("train", 3), ("val", 1))}


def test_every_kind_of_fault_is_there_and_known_by_its_row(corpus: Corpus) -> None:
    kinds = Counter(row["fault"] for row in corpus.faults["rows"].values())
    assert set(kinds) == {*FAULTS, "duplicate_url", "duplicate_image"}
    assert sum(kinds.values()) == 36


def test_duplicates_follow_their_originals(corpus: Corpus) -> None:
    rows = {str(row["id"]): row for row in corpus.table.to_pylist()}
    for column, kind in (("url", "duplicate_url"), ("image_phash", "duplicate_image")):
        for key, fault in corpus.faults["rows"].items():
            if fault["fault"] == kind:
                earlier = [row for row in rows.values() if row["id"] < int(key)]
                assert any(row[column] == rows[key][column] for row in earlier)


def test_the_same_config_gives_the_same_corpus_and_another_seed_another(corpus: Corpus) -> None:
    assert make_corpus(CONFIG) == corpus
    other = make_corpus(CoyoConfig(images=72, fault_fraction=0.5, val_fraction=0.25, seed=1))
    assert other.table["image_phash"] != corpus.table["image_phash"]


def test_slow_urls_are_limited() -> None:
    config = CoyoConfig(images=60, fault_fraction=1.0, slow_urls=1)
    kinds = Counter(row["fault"] for row in make_corpus(config).faults["rows"].values())
    assert kinds["slow"] == 1
    assert kinds["missing"] > kinds["gone"]


@pytest.mark.parametrize("wrong", [{"images": 0}, {"val_fraction": 0.0}, {"fault_fraction": -1.0}])
def test_impossible_sizes_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="need images"):
        CoyoConfig(**wrong)
