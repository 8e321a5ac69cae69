"""What each kind of generator can be told, by a user and by a data set."""

import pytest
import torch

from reptok.configs import CONDITIONS, GeneratorConfig
from reptok.generator.conditioner import CONDITIONERS
from reptok.generator.generator import TokenGenerator

SIZES = {"token_dim": 8, "dim": 16, "depth": 1, "heads": 2}
CONFIGS = {
    "none": GeneratorConfig(condition="none", num_extra_tokens=2, **SIZES),
    "class": GeneratorConfig(condition="class", num_classes=3, **SIZES),
    "text": GeneratorConfig(condition="text", text_dim=4, **SIZES),
}


class Words:
    """A text encoder of one state per word: its length."""

    def __call__(self, texts):
        words = [[len(word) for word in text.split()] for text in texts]
        longest = max(map(len, words))
        states = torch.tensor([[*row, *[0] * (longest - len(row))] for row in words]).float()
        return states[..., None].expand(-1, -1, 4), states > 0


def conditioner(kind):
    return CONDITIONERS[kind](CONFIGS[kind], Words(), ["cat", "dog", "owl"])


def test_every_condition_of_the_configuration_has_its_class():
    assert set(CONDITIONS) == CONDITIONERS.keys()


def test_classes_are_asked_for_by_name_or_number_and_read_from_samples():
    classes = conditioner("class")
    assert classes.asked(["owl", "1", 0]).labels.tolist() == [2, 1, 0]
    assert classes.of(["a", "b"], torch.tensor([2, 0])).labels.tolist() == [2, 0]
    assert classes.title("a caption", "cat") == "cat"
    for wanted, said in (
        ([], "give labels"),
        (["bee"], "known classes: cat, dog, owl"),
        ([3], "outside 0 ... 2"),
    ):
        with pytest.raises(ValueError, match=said):
            classes.asked(wanted)
    with pytest.raises(ValueError, match="samples without a label"):
        classes.of(["a", "b"], torch.tensor([2, -1]))


def test_texts_become_states_and_a_mask():
    found = conditioner("text").of(["a bee", "owls"], torch.tensor([-1, -1]))
    assert found.text[..., 0].tolist() == [[1, 3], [4, 0]] and found.mask.tolist() == [
        [True, True],
        [True, False],
    ]
    assert conditioner("text").title("a caption", "cat") == "a caption"
    with pytest.raises(ValueError, match="conditioned on text"):
        conditioner("text").asked(["a bee", 3])
    with pytest.raises(ValueError, match="keep its text encoder"):
        CONDITIONERS["text"](CONFIGS["text"]).asked(["a bee"])


def test_who_is_told_nothing_takes_nothing():
    nothing = conditioner("none")
    assert nothing.asked([]).labels is None and nothing.of(["a"], torch.tensor([1])).labels is None
    with pytest.raises(ValueError, match="neither prompt nor labels"):
        nothing.asked(["a bee"])


@pytest.mark.parametrize("kind", CONDITIONERS)
def test_a_generator_takes_the_example_of_its_kind(kind):
    generator = TokenGenerator(CONFIGS[kind])
    example = conditioner(kind).example(5, text_length=3)
    assert generator.velocity(torch.zeros(5, 1, 8), torch.rand(5), example).shape == (5, 1, 8)
    assert generator.is_conditional == (kind != "none")
