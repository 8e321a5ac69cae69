"""Samples that lie in the shards and that no training reads."""

import json

import numpy as np
import pytest

from reptok.autoencoder import LatentSpec
from reptok.data.excluded import Included, read_excluded
from reptok.data.index import EXCLUDED
from reptok.data.loader import GeneratorData, TokenizerData
from reptok.data.reshard import reshard
from reptok.data.shards import read_samples
from reptok.data.stream import Batches
from reptok.data.verify import digest_of

NOBODY = np.zeros(1, bool)


def test_numbers_leave_no_gap():
    included = Included(["a", "b"], [4, 3], {"a": [0, 2], "b": [2]})
    assert included.rows == [2, 2]
    assert included.stored(np.arange(4)).tolist() == [1, 3, 4, 5]  # of the seven numbered 0 to 6


def test_without_a_list_numbers_are_those_of_the_shards():
    samples = np.arange(7)
    assert Included(["a", "b"], [4, 3], {}).stored(samples) is samples


def test_a_row_that_a_shard_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="row 4 of a, which has 4"):
        Included(["a"], [4], {"a": [4]})


@pytest.mark.parametrize("value", [{"a": [2, 1]}, {"a": [1, 1]}, {"a": [-1]}, {"a": ["1"]}, {"a": 3}])
def test_a_damaged_list_is_named(value, tmp_path):
    (tmp_path / EXCLUDED).write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"excluded\.json"):
        read_excluded(tmp_path)


@pytest.fixture
def folders(small_dataset, tmp_path):
    """A dataset of 5 and 6 training samples with its tokens; keys are 0 to 10."""
    return small_dataset.write_dataset(tmp_path / "dataset"), small_dataset.write_tokens(
        tmp_path / "tokens", 8
    )


def test_a_training_reads_every_sample_but_those(folders):
    dataset, tokens = folders
    every = GeneratorData(dataset, tokens)
    (dataset / EXCLUDED).write_text(json.dumps({"train-00000": [1, 4], "train-00001": [0]}))
    data = GeneratorData(dataset, tokens)
    assert data.rows == [3, 5]
    left = [0, 2, 3, 6, 7, 8, 9, 10]
    for number, stored in enumerate(left):
        mine, there = (d.read(np.array([n]), NOBODY) for d, n in ((data, number), (every, stored)))
        assert np.array_equal(mine.tokens, there.tokens) and mine.captions == there.captions
    stream = Batches(data, batch_size=4, seed=0, flip=False)
    epoch = np.concatenate([stream.read(position).tokens for position in (0, 4)])
    expected = every.read(np.array(left), np.zeros(8, bool)).tokens
    assert np.array_equal(np.sort(epoch, axis=None), np.sort(expected.numpy(), axis=None))


def test_images_moments_and_frozen_tokens_are_passed_over_alike(small_dataset, tmp_path):
    spec = LatentSpec(vae="x", vae_digest="x", scale=1.0, shift=0.0, channels=4, downsample=8)
    dataset = small_dataset.write_dataset(tmp_path / "dataset")
    latents = small_dataset.write_latents(tmp_path / "latents", spec, token_dim=6, latent_size=4)
    every = TokenizerData(dataset, latents).read(np.array([10]), NOBODY)
    (dataset / EXCLUDED).write_text(json.dumps({"train-00000": [0], "train-00001": [1]}))
    for cache in (0, 1 << 30):
        data = TokenizerData(dataset, latents, cache_bytes=cache)
        assert data.rows == [4, 5]
        for _ in range(2):  # the second comes from the cache
            last = data.read(np.array([8]), NOBODY)
            for name in ("images", "moments", "frozen_token"):
                assert np.array_equal(getattr(last, name), getattr(every, name)), name


def test_resharding_leaves_them_out(small_dataset, tmp_path):
    dataset = small_dataset.write_dataset(tmp_path / "dataset")
    keys = [s.key for name in ("train-00000", "train-00001") for s in read_samples(dataset / f"{name}.tar")]
    (dataset / EXCLUDED).write_text(json.dumps({"train-00001": [2]}))
    sound(dataset)
    index = reshard(dataset, tmp_path / "new", rows=100)
    assert [entry.rows for entry in index.splits["train"]] == [10]
    found = [sample.key for sample in read_samples(tmp_path / "new" / "train-00000.tar")]
    assert found == keys[:7] + keys[8:]


def sound(dataset):
    """Give the fixture's index the checksums that resharding asks for."""
    index = json.loads((dataset / "index.json").read_text())
    for entries in index["splits"].values():
        for entry in entries:
            path = dataset / f"{entry['shard']}.tar"
            entry |= {"bytes": path.stat().st_size, "sha256": digest_of(path)}
    (dataset / "index.json").write_text(json.dumps(index))
