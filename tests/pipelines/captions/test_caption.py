"""Which caption an image gets."""

import pytest

from pipelines.captions.caption import CaptionerConfig, choose, drawn
from reptok.configs import VisionLanguageConfig

CONFIG = CaptionerConfig(fallback="a photo")
GOOD, BAD = {"text": "a fox in snow", "reason": None}, {"text": "sorry", "reason": "refusal"}


@pytest.mark.parametrize(
    ("generated", "failure", "alt", "mix", "expected"),
    [
        ([GOOD], None, ("red fox", None), 1.0, ("a fox in snow", "model", None)),
        ([GOOD], None, ("red fox", None), 0.0, ("red fox", "alt_text", None)),
        ([BAD, GOOD], None, ("red fox", None), 1.0, ("a fox in snow", "model", None)),
        ([BAD], None, ("red fox", None), 1.0, ("red fox", "alt_text", "refusal")),
        ([], "captioner_failed", ("red fox", None), 1.0, ("red fox", "alt_text", "captioner_failed")),
        ([], "undecodable", ("red fox", None), 0.0, ("red fox", "alt_text", None)),
        ([GOOD], None, ("", "file_name"), 0.0, ("a fox in snow", "model", "file_name")),
        ([BAD], None, ("", "empty"), 0.0, ("a photo", "fallback", "empty")),
        ([BAD], None, ("", "empty"), 1.0, ("a photo", "fallback", "refusal")),
        ([], None, ("", "empty"), 0.0, ("a photo", "fallback", "empty")),
    ],
)
def test_the_drawn_source_then_the_other_then_the_fallback(generated, failure, alt, mix, expected):
    row = {"key": "000000000001", "generated": generated, "failure": failure}
    assert choose(row, *alt, mix, CONFIG) == expected


def test_the_mix_is_a_share_and_a_function_of_seed_and_key():
    keys = [f"{number:012d}" for number in range(4000)]
    share = sum(drawn(0, key) < 0.6 for key in keys) / len(keys)
    assert abs(share - 0.6) < 0.03  # four deviations
    assert [drawn(0, key) for key in keys[:9]] == [drawn(0, key) for key in keys[:9]]
    both = sum((drawn(0, key) < 0.6) == (drawn(1, key) < 0.6) for key in keys) / len(keys)
    assert abs(both - 0.52) < 0.04


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mix": 1.5, "model": VisionLanguageConfig()}, "mix"),
        ({"mix": 0.5}, "no captioner.model"),
        ({"val_mix": 0.5}, "no captioner.model"),
        ({"limit_samples": 0}, "limit_samples"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_settings_without_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CaptionerConfig(**settings)
