"""What identifies a sample, and its split: both follow from what it is, never from its place in a list."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from hashlib import sha256

KEY_DIGITS = 24
MIN_VAL, MANY_ROWS = 8, 10_000
"""Samples that are to validate, and rows of which chance gives as many."""
LEAST_VAL, MOST_OF_FEW, FEWEST = 2, 0.25, 4
"""Samples that validate in any case, the share that few rows give for more, and rows that give any."""


def key_of(*words: str) -> str:
    """Return a sample's key: 24 hex digits, 96 bits of the SHA-256 of what it is.

    Args:
        *words: Its canonical URL, or its path, row or member inside of its source; what else tells it apart.
    """
    return sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:KEY_DIGITS]


def split_of(key: str, val_fraction: float) -> str:
    """Assign a key to "train" or "val" by its hash alone: as long as the share is the same, it stays there.

    Args:
        key: The sample's key.
        val_fraction: Expected share of "val", in [0, 1).
    """
    return "val" if place_of(key) < val_fraction else "train"


def place_of(key: str) -> float:
    """Return a key's place in [0, 1), which its hash alone decides: independent of the order of keys."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64


def enough_to_validate(keys: Collection[str], fraction: float) -> float:
    """Return the share for validation, raised for few keys so that there is something to validate on.

    Of up to `MANY_ROWS` keys `MIN_VAL` are drawn, unless that takes more than `MOST_OF_FEW` of all places,
    which are drawn then; and two in any case, from `FEWEST` on. A share of 0 stays.

    Each of these bounds can only sink as keys are added: while a source grows, samples go over from
    validation to training, and what once was trained on never validates (from `FEWEST` keys on).
    """
    if not fraction or not FEWEST <= len(keys) <= MANY_ROWS:
        return fraction
    few = min(at_least(keys, MIN_VAL, fraction), MOST_OF_FEW) if len(keys) >= MIN_VAL else MOST_OF_FEW
    return max(few, at_least(keys, LEAST_VAL, fraction))


def at_least(keys: Iterable[str], wanted: int, fraction: float) -> float:
    """Return a share, raised so that so many of the keys validate; 0 stays."""
    if not fraction:
        return fraction
    places = sorted(map(place_of, keys))
    return max(fraction, math.nextafter(places[wanted - 1], 1.0))
