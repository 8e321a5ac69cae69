"""Captions become states: kept where they come again, in few lengths where every length is a new shape."""

import pytest
import torch

from reptok.configs import TextEncoderConfig
from reptok.text_encoder import TextEncoder
from reptok.training.captions import BatchedCaptions, CachedCaptions, caption_reader


class Counting(TextEncoder):
    """Counts what it is asked for."""

    def __init__(self, folder):
        self.__dict__["seen"] = []
        super().__init__(TextEncoderConfig(path=str(folder / "text_encoder"), max_length=60))
        self.seen.clear()  # what it tried itself on

    def forward(self, captions, **how):
        self.seen.append(list(captions))
        return super().forward(captions, **how)


CAPTIONS = ["a cat", "a red cup", "a cat"]


@pytest.fixture
def encoder(tiny_models):
    return Counting(tiny_models)


def test_a_repeated_caption_is_encoded_once(encoder):
    read = CachedCaptions(encoder)
    (first, first_mask), (_, again_mask) = read(CAPTIONS), read(CAPTIONS)
    assert encoder.seen == [["a cat"], ["a red cup"]]
    states, mask = encoder(CAPTIONS)
    assert torch.equal(first_mask, mask) and torch.equal(again_mask, mask)
    assert torch.allclose(first[mask], states[mask], atol=1e-5)


def test_of_many_captions_none_is_kept(encoder):
    assert type(caption_reader(encoder, 20_000)) is CachedCaptions
    assert type(caption_reader(encoder, 20_001)) is BatchedCaptions
    read = caption_reader(encoder, 120_000_000)
    read(CAPTIONS), read(CAPTIONS)
    assert encoder.seen == [CAPTIONS] * 2


def test_lengths_are_few_and_even_and_padding_is_masked(encoder, monkeypatch):
    monkeypatch.setattr("reptok.training.captions.EVEN", 4)  # the tiny model has 16 positions
    read = BatchedCaptions(encoder)
    lengths = set()
    for words in range(1, 80):
        captions = ["cat " * words, "a red cup"]
        states, found = read(captions)
        plain, mask = encoder(captions)
        length = plain.shape[1]
        assert torch.equal(found[:, :length], mask) and not found[:, length:].any()
        assert torch.allclose(states[:, :length][mask], plain[mask], atol=1e-5)
        lengths.add(states.shape[1])
    assert len(lengths) <= 4 and all(length % 4 == 0 for length in lengths)
    assert max(lengths) == encoder.longest == 16 and len(lengths) > 1
