"""What is told of verdicts: figures that are known by hand."""

import json

import pyarrow as pa
import pytest

from reptok.data.caption_similarity import describe_similarity
from reptok.data.columns import NAMED_KEYS, VERDICTS, write_table
from reptok.data.images import encode_jpeg
from reptok.data.shards import Sample, write_samples
from reptok.data.stats import describe
from reptok.data.verdict_stats import describe_verdicts, verdicts_of


def verdict(key, reason, source, score, quarantined=False):
    facts = {"key": key, "kept": reason is None, "reason": reason, "source": source}
    return {**facts, "quarantined": quarantined, "clip_similarity": score}


@pytest.fixture
def verdicts(tmp_path):
    folder = tmp_path / "verdicts" / "aaaa"
    folder.mkdir(parents=True)
    parts = [
        [verdict("0", None, "a.test", 0.3), verdict("1", "unlike_its_text", "a.test", 0.1),
         verdict("2", None, None, None)],
        [verdict("3", "not_as_listed", "b.test", None), verdict("4", "unlike_its_text", "b.test", 0.0),
         verdict("5", "known_hash", "b.test", 0.5, True), verdict("6", None, "b.test", 0.5)],
    ]  # fmt: skip
    for number, rows in enumerate(parts):
        values = {name: [row.get(name) for row in rows] for name in rows[0]}
        values["clip_similarity"] = pa.array(values["clip_similarity"], pa.float64())
        write_table(folder / f"verdicts-{number:05d}.parquet", values, VERDICTS)
    twins = [{"key": "6", "table": "images-00001", "reason": "near_duplicate"}]
    write_table(folder / "excluded.parquet", twins, NAMED_KEYS)
    return folder


def test_reasons_scores_and_sources_are_told(verdicts):
    assert list(describe_verdicts(verdicts))[1:] == [
        "  kept: 3 (42.9 %)",
        "  unlike_its_text: 2 (28.6 %)",
        "  known_hash: 1 (14.3 %)",
        "  not_as_listed: 1 (14.3 %)",
        "  quarantined: 1, named in review.parquet",
        "  kept, but passed over by trainings as twins in other tables: 1",
        "  clip_similarity of kept at 0 %, 5 %, 25 %, 50 %, 75 %, 95 %, 100 %: "
        "0.3, 0.31, 0.35, 0.4, 0.45, 0.49, 0.5 (2)",
        "  clip_similarity of known_hash at 0 %, 5 %, 25 %, 50 %, 75 %, 95 %, 100 %: "
        "0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5 (1)",
        "  clip_similarity of unlike_its_text at 0 %, 5 %, 25 %, 50 %, 75 %, 95 %, 100 %: "
        "0, 0.005, 0.025, 0.05, 0.075, 0.095, 0.1 (2)",
        "  source b.test, 4 pictures: "
        "known_hash 1 (25.0 %), not_as_listed 1 (25.0 %), unlike_its_text 1 (25.0 %)",
        "  source a.test, 2 pictures: unlike_its_text 1 (50.0 %)",
    ]


def test_a_dataset_tells_of_the_verdicts_that_it_was_made_by(verdicts, small_dataset, tmp_path):
    dataset = small_dataset.write_dataset(tmp_path / "dataset" / "bbbb")
    assert verdicts_of(dataset) is None
    (dataset / "manifest.json").write_text('{"inputs": {"verdicts": "aaaa"}, "stats": {}}')
    (dataset / "excluded.json").write_text('{"train-00000": [1, 2]}')
    lines = list(describe(dataset))
    assert "passed over by trainings, as twins in other shards: 2" in lines
    assert "  unlike_its_text: 2 (28.6 %)" in lines


def test_similarity_to_captions_is_told_by_whose_they_are(small_clip, tmp_path):
    """Captions of the model name the colour, alt-texts another one."""
    module, clip = small_clip
    names = list(module.COLOURS)
    samples = []
    for number in range(16):
        right = names[number % 4]
        told = names[(number + 1) % 4] if number % 2 else right
        info = {"caption_source": "alt_text" if number % 2 else "model", "width": 16, "height": 16}
        jpg = encode_jpeg(module.picture(right, 99 + number))
        samples.append(Sample(f"{number:04d}", jpg, f"a {told} square", info))
    with (tmp_path / "train-00000.tar").open("wb") as file:
        write_samples(file, samples)
    shard = {"shard": "train-00000", "rows": 16, "bytes": 0, "sha256": ""}
    index = {"schema_version": 1, "splits": {"train": [shard]}, "class_names": None, "image_size": 16}
    (tmp_path / "index.json").write_text(json.dumps(index))
    alt_text, model = describe_similarity(tmp_path, clip)
    assert alt_text.startswith("similarity to captions of alt_text at 0 %")
    assert model.startswith("similarity to captions of model at 0 %") and model.endswith("(8 pictures)")

    def least_and_most(line):
        values = [float(value) for value in line.split(": ")[1].split(" (")[0].split(", ")]
        return values[0], values[-1]

    assert least_and_most(model)[0] > least_and_most(alt_text)[1] + 0.3
