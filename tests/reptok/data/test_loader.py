import dataclasses
import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from reptok.autoencoder import LatentSpec
from reptok.data.blocks import BlockWriter, iterate_blocks
from reptok.data.images import decode_image
from reptok.data.index import QUARANTINE
from reptok.data.loader import GeneratorData, TokenizerData, gather, split_sizes
from reptok.data.rows import BlockRows, Shards
from reptok.data.shards import read_samples
from reptok.data.stream import Batches

SPEC = LatentSpec(vae="x", vae_digest="x", scale=1.0, shift=0.0, channels=4, downsample=8)


@pytest.fixture
def folders(tmp_path, small_dataset):
    dataset = small_dataset.write_dataset(tmp_path / "dataset")
    latents = small_dataset.write_latents(tmp_path / "latents", SPEC, token_dim=6, latent_size=4)
    tokens = small_dataset.write_tokens(tmp_path / "tokens", token_dim=6)
    return dataset, latents, tokens


def stored(folder, name):
    shards = [folder / f"train-{i:05d}.tar" for i in range(2)]
    return np.concatenate([block[name] for shard in shards for block in iterate_blocks(shard)])


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_tokenizer_batch_is_what_was_stored(folders, cache_bytes):
    dataset, latents, _ = folders
    data = TokenizerData(dataset, latents, cache_bytes=cache_bytes)
    files = [s for i in range(2) for s in read_samples(dataset / f"train-{i:05d}.tar")]
    samples, flipped = np.array([10, 0, 4, 5]), np.array([False, True, False, True])
    for _ in range(2):
        batch = data.read(samples, flipped)
        for row, (sample, flip) in enumerate(zip(samples, flipped, strict=True)):
            image = decode_image(files[sample].jpg)
            assert np.array_equal(batch.images[row].numpy(), image[:, ::-1] if flip else image)
            moments = stored(latents, "moments")[sample, int(flip)]
            assert np.array_equal(batch.moments[row].numpy(), moments)
            assert np.array_equal(
                batch.frozen_token[row].numpy(), stored(latents, "frozen_token")[sample, int(flip)]
            )


def test_a_generator_batch_is_what_was_stored(folders):
    dataset, _, tokens = folders
    batch = GeneratorData(dataset, tokens).read(np.array([7, 1, 3]), np.array([True, False, False]))
    assert batch.captions == ["a red cup", "a red cup", "a cat"]
    assert batch.labels.tolist() == [1, 1, 0]
    assert np.array_equal(batch.tokens.numpy(), stored(tokens, "token")[[7, 1, 3], [1, 0, 0]])


def test_samples_of_a_shard_that_was_given_up_are_passed_over(folders):
    dataset, latents, tokens = folders
    for folder in (latents, tokens):
        (folder / "train-00000.tar").unlink()
        (folder / QUARANTINE).write_text(json.dumps([{"shard": "train-00000", "rows": 1, "cause": "x"}]))
    files = list(read_samples(dataset / "train-00001.tar"))
    data = GeneratorData(dataset, tokens)
    assert data.rows == [len(files)] == TokenizerData(dataset, latents).rows
    read = data.read(np.arange(len(files)), np.zeros(len(files), bool))
    assert read.captions == [sample.caption for sample in files]
    token = np.concatenate([block["token"] for block in iterate_blocks(tokens / "train-00001.tar")])
    assert np.array_equal(read.tokens.numpy(), token[:, 0])


def test_ranks_share_each_batch_without_overlap(folders):
    """The ranks' rows, put together, are the batch of a single process; every epoch has every sample once."""
    dataset, _, tokens = folders
    data = GeneratorData(dataset, tokens)
    alone = Batches(data, 4, seed=1)
    pair = [Batches(data, 4, seed=1, rank=rank, world_size=2) for rank in range(2)]
    seen = []
    for position in range(0, 44, 4):
        whole = alone.read(position)
        parts = [batches.read(position) for batches in pair]
        assert torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))
        seen += whole.samples.tolist()
    assert [sorted(seen[epoch * 11 : epoch * 11 + 11]) for epoch in range(4)] == [list(range(11))] * 4


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 6, 11])
def test_a_stream_resumes_anywhere(folders, steps):
    dataset, latents, _ = folders
    data = TokenizerData(dataset, latents)
    whole = [batch.samples.tolist() for batch in islice(Batches(data, 4, seed=2).stream(0), 14)]
    resumed = [
        batch.samples.tolist() for batch in islice(Batches(data, 4, seed=2).stream(4 * steps), 14 - steps)
    ]
    assert resumed == whole[steps:]


def test_batches_of_steps_that_look_at_no_image_are_the_same_without_them(folders):
    dataset, latents, _ = folders
    data = TokenizerData(dataset, latents)

    def columns(step):
        return frozenset({"moments", "frozen_token"} | ({"images"} if step >= 2 else set()))

    for rank in range(2):
        seen, unseen = (
            Batches(data, 4, seed=1, rank=rank, world_size=2, columns=chosen) for chosen in (None, columns)
        )
        for position in (0, 4, 8, 12):
            batch, expected = unseen.read(position), seen.read(position)
            assert (batch.images is None) == (position < 8)
            assert batch.images is None or torch.equal(batch.images, expected.images)
            assert torch.equal(batch.frozen_token, expected.frozen_token)
    assert data.read(np.array([0]), np.array([False])).images is not None


def test_impossible_divisions_are_refused(folders):
    data = GeneratorData(folders[0], folders[2])
    with pytest.raises(ValueError, match="12 training workers for 11 samples"):
        Batches(data, 12, seed=0, world_size=12)
    with pytest.raises(ValueError, match="less than one sample each"):
        Batches(data, 4, seed=0, world_size=5)


def test_three_ranks_share_a_batch_of_four_and_are_told_that_there_are_two_shards(folders):
    data = GeneratorData(folders[0], folders[2])
    ranks = [Batches(data, 4, seed=1, rank=rank, world_size=3) for rank in range(3)]
    shares = [batches.read(8).samples for batches in ranks]
    assert sorted(len(share) for share in shares) == [1, 1, 2]
    assert np.concatenate(shares).tolist() == Batches(data, 4, seed=1).read(8).samples.tolist()
    assert ranks[0].notes == ["3 training workers read 2 shards: every shard is read by several of them"]
    assert not Batches(data, 4, seed=1, world_size=2).notes


def test_many_readers_keep_the_order(folders):
    data = TokenizerData(folders[0], folders[1])
    one, four = (Batches(data, 4, seed=2, readers=readers).stream(8) for readers in (1, 4))
    for single, parallel in islice(zip(one, four, strict=True), 12):
        assert np.array_equal(single.samples, parallel.samples)
        assert torch.equal(single.images, parallel.images)


def test_the_system_is_told_a_window_in_advance_what_a_rank_will_read(folders):
    """In the order in which one thread does it: all but the first batches were asked for before, nothing that
    the rank does not read was, and whoever enters a window has asked for the one after it."""
    done = []

    class Told(GeneratorData):
        def read(self, samples, flipped, columns=None):
            done.append(("read", list(zip(samples.tolist(), flipped.tolist(), strict=True))))
            return super().read(samples, flipped, columns)

        def fetch(self, samples, flipped, columns=None):
            done.append(("fetch", list(zip(samples.tolist(), flipped.tolist(), strict=True))))
            super().fetch(samples, flipped, columns)

    batches = Batches(Told(folders[0], folders[2]), 4, seed=3, rank=1, world_size=2, window=4)
    windows = [batches.order.window_end(position) for position in range(11)]
    assert len(set(windows)) == 2 and windows[-1] == 11, "an epoch has two windows"
    list(islice(batches.stream(0), 22))
    position, asked, read = 0, [], []
    for what, pairs in done:
        if what == "fetch":
            asked += pairs
            continue
        assert position < 8 or all(read.count(pair) < asked.count(pair) for pair in pairs)
        if position >= 8:
            read += pairs
            known = batches.order.window_end(batches.order.window_end(position))
            assert len(asked) >= sum(place % 4 >= 2 for place in range(8, known))
        position += 4
    rest = Batches(GeneratorData(folders[0], folders[2]), 4, seed=3, rank=1, world_size=2, window=4)
    rows = [row for at in range(8, 120, 4) for row in rest.read(at).samples.tolist()]
    assert [sample for sample, _ in asked] == rows[: len(asked)]


def test_readers_start_no_threads_of_their_own(tmp_path, small_dataset):
    """Eight readers on eight threads each were 64: a process has its own threads and one for each reader."""
    program = f"""
import json, os, sys
import torch
sys.path.insert(0, {str(Path(small_dataset.__file__).parent)!r})
from pathlib import Path
import small_dataset
from reptok.data.loader import TokenizerData
from reptok.data.stream import Batches
from reptok.autoencoder import LatentSpec
folder = Path({str(tmp_path)!r})
dataset = small_dataset.write_dataset(folder / "dataset")
latents = small_dataset.write_latents(folder / "latents", LatentSpec(**{dataclasses.asdict(SPEC)!r}),
    token_dim=64, latent_size=64)
torch.set_num_threads(4)
(torch.ones(1 << 20) * 2).sum()  # the process's own team
def threads(): return len(os.listdir("/proc/self/task"))
stream = Batches(TokenizerData(dataset, latents), 256, seed=0, readers=4).stream(0)
before = threads()
for _ in range(6): next(stream)
print(threads() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "4"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) <= 4


def test_latents_of_another_dataset_are_refused(folders, tmp_path, small_dataset):
    other = small_dataset.write_dataset(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="rerun the stage"):
        TokenizerData(other, folders[1])


def test_splits(folders):
    assert split_sizes(folders[0]) == {"train": 11, "val": 3}
    with pytest.raises(ValueError, match="no 'test' samples"):
        GeneratorData(folders[0], folders[2], "test")


def test_a_mirror_image_that_was_not_stored_is_an_error_and_no_other_sample(tmp_path):
    path = tmp_path / "train-00000.tar"
    with path.open("wb") as file:
        blocks = BlockWriter(file, samples_per_block=2)
        blocks.add(list("abc"), {"token": np.arange(6, dtype=np.float32).reshape(3, 1, 2)})
        blocks.close()
    shards, samples = Shards([path], [3], BlockRows), np.array([2, 0])
    assert gather(shards, "token", samples, np.zeros(2, bool)).tolist() == [[4, 5], [0, 1]]
    with pytest.raises(ValueError, match="holds 1 variants of 'token', and 2 are asked for"):
        gather(shards, "token", samples, np.array([False, True]))
    with pytest.raises(ValueError, match="holds no 'moments'"):
        gather(shards, "moments", samples, np.zeros(2, bool))
