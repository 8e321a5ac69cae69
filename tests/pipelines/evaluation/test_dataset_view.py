"""What evaluations look at: samples of a split, without those that trainings pass over."""

import json

import numpy as np
import pytest

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.dataset_view import DatasetView
from reptok.data.transforms import load_image


@pytest.fixture
def dataset(small_dataset, tmp_path):
    """`dataset({"val-00000": [1]})`: 11 samples for training and 3 for validation, without those rows."""

    def make(excluded):
        source = small_dataset.write_dataset(tmp_path / f"source-{len(excluded)}")
        (source / "excluded.json").write_text(json.dumps(excluded))
        out = Workspace(str(tmp_path / f"dataset-{len(excluded)}"))
        for path in sorted(source.iterdir()):
            with out.create(path.name) as file:
                file.write(path.read_bytes())
        out.publish({"stage": "test"})
        return Artifact("dataset", "0", out.url)

    return make


def test_what_trainings_pass_over_is_not_evaluated_and_the_others_keep_their_pixels(dataset):
    whole = DatasetView(dataset({}), "val", 10)
    rest = DatasetView(dataset({"val-00000": [1], "train-00000": [0, 4]}), "val", 10)
    assert [e.key for e in rest.examples] == [whole.examples[0].key, whole.examples[2].key]
    assert np.array_equal(rest.images([0, 1]), whole.images([0, 2]))
    jpg = whole._images("val-00000.tar").jpg(2)
    assert np.array_equal(rest.images([1])[0], load_image(jpg, 32))


def test_training_pictures_that_are_not_trained_on_are_in_no_bank(dataset):
    view = DatasetView(dataset({"train-00000": [0, 4], "train-00001": [5]}), "train", 100)
    assert [(e.shard, e.row) for e in view.examples] == [
        *(("train-00000.tar", row) for row in (1, 2, 3)), *(("train-00001.tar", row) for row in range(5)),
    ]  # fmt: skip


def test_of_small_shards_as_many_are_read_as_hold_what_is_asked_for(dataset):
    """Training has 5 and 6 samples in two shards; of the first one, all but one are passed over."""
    whole, little = dataset({}), dataset({"train-00000": [0, 1, 2, 3]})

    def shards(dataset, limit):
        return {example.shard[:11] for example in DatasetView(dataset, "train", limit, 1).examples}

    first, both = {"train-00000"}, {"train-00000", "train-00001"}
    assert shards(whole, 5) == first and shards(whole, 6) == both
    assert shards(little, 1) == first and shards(little, 2) == both


def test_a_damaged_list_is_refused_by_its_name(dataset):
    with pytest.raises(ValueError, match=r"excluded\.json: the rows of val-00000 are not whole numbers"):
        DatasetView(dataset({"val-00000": [2, 1]}), "val", 10)
