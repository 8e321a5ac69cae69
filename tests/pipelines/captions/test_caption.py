"""Which caption an image gets."""

import pytest

from pipelines.captions.caption import CaptionerConfig, choose, drawn
from reptok.configs import VisionLanguageConfig

GOOD, BAD = {"text": "a fox in snow", "reason": None}, {"text": "sorry", "reason": "refusal"}


@pytest.mark.parametrize(
    ("generated", "failure", "alt", "model_first", "expected"),
    [
        ([GOOD], None, ("red fox", None), True, ("a fox in snow", "model", None)),
        ([GOOD], None, ("red fox", None), False, ("red fox", "alt_text", None)),
        ([BAD, GOOD], None, ("red fox", None), True, ("a fox in snow", "model", None)),
        ([BAD], None, ("red fox", None), True, ("red fox", "alt_text", "refusal")),
        ([], "captioner_failed", ("red fox", None), True, ("red fox", "alt_text", "captioner_failed")),
        ([], "undecodable", ("red fox", None), False, ("red fox", "alt_text", None)),
        ([GOOD], None, (None, "file_name"), False, ("a fox in snow", "model", "file_name")),
        ([BAD], None, (None, "empty"), False, ("a photo", "fallback", "empty")),
        ([BAD], None, (None, "empty"), True, ("a photo", "fallback", "refusal")),
        ([], None, (None, "empty"), False, ("a photo", "fallback", "empty")),
    ],
)
def test_the_drawn_source_then_the_other_then_the_fallback(generated, failure, alt, model_first, expected):
    text, reason = alt
    row = {"generated": generated, "failure": failure, "alt_text": text, "alt_reason": reason}
    assert choose(row | {"model_first": model_first}, "a photo") == expected


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
