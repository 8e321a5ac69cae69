"""The English text encoder tells apart words that the demo never saw; its recipe starts from single words."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from examples.zoo.wordnet import read
from reptok.configs import TextEncoderConfig
from reptok.text_encoder import TextEncoder
from reptok.vocabulary import words_of

ENGLISH = Path(__file__).parents[3] / "zoo" / "english"
FRUIT = ["apricot", "strawberry", "ripe plums", "papaya"]
VEHICLES = ["truck", "ambulance", "steam locomotive", "tractors"]
BIRDS = ["cassowary", "emu", "grey heron", "penguins"]


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(TextEncoderConfig(kind="transformers", path=str(ENGLISH), max_length=32))


def with_their_kind(encoder):
    """How many of the captions have another of their kind as the nearest by mean state."""
    captions = [*FRUIT, *VEHICLES, *BIRDS]
    states, mask = encoder(captions)
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    means = F.normalize(means - means.mean(0), dim=1)
    near = (means @ means.T).fill_diagonal_(-1)
    kinds = torch.arange(len(captions)) // 4
    return int((kinds[near.argmax(1)] == kinds).sum())


def test_captions_lie_with_their_kind_more_often_than_chance_and_than_with_the_demos_words(encoder):
    """Of twelve, a blind guess finds three; so does the encoder that takes all of these for unknown."""
    known = TextEncoder(TextEncoderConfig(path=str(ENGLISH.parent / "text_encoder"), max_length=32))
    assert with_their_kind(encoder) >= 6 > with_their_kind(known) + 1


def test_a_caption_has_the_same_states_in_every_batch(encoder):
    alone, _ = encoder(["a grey heron"])
    among, mask = encoder(["a grey heron", "a picture of two tractors on a muddy field"])
    length = alone.shape[1]
    assert mask[0].sum() == length
    torch.testing.assert_close(among[0, :length], alone[0], atol=1e-4, rtol=1e-4)


def test_words_that_the_demo_never_saw_are_known():
    assert words_of(ENGLISH, [*FRUIT, *VEHICLES, *BIRDS]).unknown_share == 0
    assert words_of(ENGLISH.parent / "text_encoder", [*FRUIT, *VEHICLES, *BIRDS]).unknown_share > 0.4


def test_printed_signs_are_read_as_typed_ones(encoder):
    """As captions from word processors have them; a missing piece would be an unknown word."""
    printed, typed = "a dog’s “red ball” – old", 'a dog\'s "red ball" - old'
    for ours, theirs in zip(encoder([printed]), encoder([typed]), strict=True):
        assert torch.equal(ours, theirs)
    assert words_of(ENGLISH, [printed]).unknown_share == 0


def test_wordnet_is_read_line_by_line(tmp_path):
    gloss = 'a fruit; "an apple a day"; "two apples"  '
    line = f"07753743 13 n 02 red_apple 0 eating_apple(a) 0 001 @ 07739125 n 0000 | {gloss}\n"
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        (tmp_path / name).write_text("  1 a licence\n" + (line if name == "data.noun" else ""))
    (apple,) = read(tmp_path)
    assert apple.names == ("red apple", "eating apple") and apple.kind == "food" and apple.part == "noun"
    assert apple.definition == "a fruit" and apple.examples == ("an apple a day", "two apples")
    (tmp_path / "data.adv").unlink()
    with pytest.raises(FileNotFoundError, match="wordnet-base"):
        read(tmp_path)
