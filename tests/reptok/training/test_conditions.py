"""Captions become states: kept where they come again, in few lengths where every length is a new shape."""

import pytest
import torch

from reptok.configs import TextEncoderConfig
from reptok.text_encoder import TextEncoder
from reptok.training.conditions import CachedCaptions, CaptionConditions, caption_conditions


class Counting(TextEncoder):
    """Counts what it is asked for."""

    def __init__(self, folder):
        self.__dict__["seen"] = []
        super().__init__(TextEncoderConfig(path=str(folder / "text_encoder"), max_length=60))
        self.seen.clear()  # what it tried itself on

    def forward(self, captions, **how):
        self.seen.append(list(captions))
        return super().forward(captions, **how)


class Batch:
    captions = ("a cat", "a red cup", "a cat")


@pytest.fixture
def encoder(tiny_models):
    return Counting(tiny_models)


def test_a_repeated_caption_is_encoded_once(encoder):
    conditions = CachedCaptions(encoder)
    first = conditions(Batch)
    again = conditions(Batch)
    assert encoder.seen == [["a cat"], ["a red cup"]]
    states, mask = encoder(["a cat", "a red cup", "a cat"])
    assert torch.equal(first.mask, mask) and torch.equal(again.mask, mask)
    assert torch.allclose(first.text[mask], states[mask], atol=1e-5)


def test_of_many_captions_none_is_kept(encoder):
    assert type(caption_conditions(encoder, 20_000)) is CachedCaptions
    assert type(caption_conditions(encoder, 20_001)) is CaptionConditions
    conditions = caption_conditions(encoder, 120_000_000)
    conditions(Batch), conditions(Batch)
    assert encoder.seen == [list(Batch.captions)] * 2


def test_lengths_are_few_and_even_and_padding_is_masked(encoder, monkeypatch):
    monkeypatch.setattr("reptok.training.conditions.EVEN", 4)  # the tiny model has 16 positions
    conditions = CaptionConditions(encoder)
    lengths = set()
    for words in range(1, 80):

        class Captions:
            captions = ("cat " * words, "a red cup")

        found = conditions(Captions)
        plain, mask = encoder(list(Captions.captions))
        length = plain.shape[1]
        assert torch.equal(found.mask[:, :length], mask) and not found.mask[:, length:].any()
        assert torch.allclose(found.text[:, :length][mask], plain[mask], atol=1e-5)
        lengths.add(found.text.shape[1])
    assert len(lengths) <= 4 and all(length % 4 == 0 for length in lengths)
    assert max(lengths) == encoder.longest == 16 and len(lengths) > 1
