"""Each gate has captions that it stops and captions, close to these, that it lets through."""

import pytest

from examples.photographs.subjects import SUBJECTS
from pipelines.captions.gates import REASONS, GatesConfig, refusal_reason, repeated_captions

STOPPED = {
    "too_short": ["a cat", "Cat.", "two dogs!", "", "…"],
    "too_long": ["a photo of a red barn near the old mill " + "x" * 500],
    "refusal": [
        "I'm sorry, but I can't see the image.",
        "I cannot describe this picture.",
        "As an AI language model, I have no eyes.",
        "No image was provided in the question.",
        "The image is blank, with nothing on it.",
        "Please provide an image to describe.",
        "Hello, how can I help you with the image today?",
        "It is a photo that is unable to be seen; unable to determine the subject.",
    ],
    "url": [
        "a red barn, photo from www.example.com",
        "a red barn https://example.com/barn",
        "the barn of barn@example.com in summer",
    ],
    "markup": [
        "<b>a red barn</b> in a field",
        "a red barn<br/>in a field",
        "**A red barn** in a field",
        "# A red barn in a field",
        "- a red barn in a field",
        "1. a red barn in a field",
        "a red barn in a field<|im_end|>",
        "a red barn\nin a field",
        "a red barn &amp; a field",
        "```a red barn in a field```",
        "![a red barn](barn.png) in a field",
        r"a field of $\frac{1}{2}$ acres",
    ],
    "repetition": [
        "a barn in a field, a barn in a field, a barn in a field",
        "red red red red red red red red red",
        "the cat is on the mat and the cat is on the mat and the cat is here",
    ],
    "language": [
        "一只猫坐在沙发上",
        "рыжая кошка на диване",
        "eine rote Scheune auf der Wiese",
        "une grange rouge dans le champ",
        "un granero rojo en el campo de la aldea",
        "een rode schuur op het veld met de koe",
    ],
}
PASSED = [
    "a red barn in a field",
    "A red barn stands in a green field under a cloudy sky.",
    "two dogs play",
    'a sign that reads "sorry, we are closed"',
    "a woman looks at an image of a blank canvas",
    "a man as a hero on a stage",
    "a café in Rio de Janeiro with a view of La Paz street",
    "a close-up of an astronaut's suit and helmet",
    "rock & roll band, 3 < 5 of them on stage",
    "a 4 x 4 car at 10:30 p.m. on a road no. 7",
    "red barn, green field, blue sky",
    "the cat is on the mat and the cat is on the sofa",
    "A street with shops, cars and people, people crossing the street, and shops with people in them.",
]


@pytest.mark.parametrize(("reason", "caption"), [(r, c) for r, captions in STOPPED.items() for c in captions])
def test_what_is_no_caption_is_refused_with_its_reason(reason, caption):
    assert refusal_reason(caption, GatesConfig()) == reason
    assert reason in REASONS


@pytest.mark.parametrize("caption", PASSED)
def test_captions_pass(caption):
    assert refusal_reason(caption, GatesConfig()) is None


def test_the_demos_own_descriptions_pass():
    assert all(
        refusal_reason(text, GatesConfig(min_words=2)) is None for s in SUBJECTS for text in s.alt_texts
    )


def test_limits_are_what_the_settings_say():
    assert refusal_reason("a cat", GatesConfig(min_words=2)) is None
    assert refusal_reason("a red barn", GatesConfig(max_characters=9)) == "too_long"
    assert refusal_reason("a red barn", GatesConfig(max_characters=10)) is None
    assert refusal_reason("eine rote Scheune auf der Wiese", GatesConfig(language="de")) is None
    assert refusal_reason("a red barn on the hill of the town", GatesConfig(language="de")) == "language"
    assert refusal_reason("一只猫 坐在 沙发上", GatesConfig(language="")) is None


def test_a_caption_of_too_many_images_is_repeated():
    captions = ["a photo of a dog"] * 6 + ["a red barn"] * 5 + ["a lake"]
    assert repeated_captions(captions, 100, GatesConfig(max_share=0.01)) == {"a photo of a dog"}
    assert repeated_captions(captions, 1000, GatesConfig(max_share=0.01)) == set()
    assert repeated_captions(captions, 100, GatesConfig(max_share=0.01, min_repeats=4)) == {
        "a photo of a dog",
        "a red barn",
    }


@pytest.mark.parametrize("settings", [{"language": "xx"}, {"max_share": 0.0}, {"min_distinct_words": 2.0}])
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GatesConfig(**settings)
