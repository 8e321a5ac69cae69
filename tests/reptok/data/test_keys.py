"""Which side a sample is on: what trained once never validates, however a source grows."""

from __future__ import annotations

import random

import pytest

from reptok.data.keys import FEWEST, MANY_ROWS, MIN_VAL, enough_to_validate, key_of, split_of


def keys(count: int, name: str = "") -> list[str]:
    return [key_of(f"{name}{number}.jpg") for number in range(count)]


def validating(found: list[str], fraction: float) -> set[str]:
    share = enough_to_validate(found, fraction)
    return {key for key in found if split_of(key, share) == "val"}


@pytest.mark.parametrize("fraction", [0.0005, 0.02, 0.15, 0.3])
def test_what_trained_once_never_validates_while_a_source_grows(fraction: float) -> None:
    for seed in range(6):
        every = keys(90, f"{seed}/")
        random.Random(seed).shuffle(every)
        trained: set[str] = set()
        for count in range(FEWEST, len(every)):
            val = validating(every[:count], fraction)
            assert not val & trained, f"{count} samples, order {seed}"
            trained |= set(every[:count]) - val
    assert trained


def test_neither_does_it_where_a_source_becomes_a_large_one() -> None:
    every = keys(MANY_ROWS + 1)
    before, after = validating(every[:-1], 0.0005), validating(every, 0.0005)
    assert len(before) == MIN_VAL and after <= before | {every[-1]}


@pytest.mark.parametrize(
    ("count", "least", "most"), [(4, 2, 4), (7, 2, 5), (12, 2, 6), (60, 4, 20), (800, 8, 30)]
)
def test_a_small_source_has_something_to_validate_on(count: int, least: int, most: int) -> None:
    for seed in range(20):
        drawn = validating(keys(count, f"{seed}/"), 0.02)
        assert least <= len(drawn) <= most, f"order {seed}"
    assert len(validating(keys(800), 0.0005)) == MIN_VAL
    assert not validating(keys(count), 0.0) and enough_to_validate(keys(count), 0.6) == 0.6


def test_three_pictures_are_too_few_to_hold_out_one() -> None:
    assert enough_to_validate(keys(FEWEST - 1), 0.02) == 0.02
