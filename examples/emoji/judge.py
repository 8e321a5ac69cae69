"""What a picture shows, read from its pixels alone: the ground, one emoji or two, where, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from examples.emoji.pictures import Emoji
from examples.emoji.scene import GROUNDS, Item, Scene, draw

_FRAME = 2
"""Pixels at each edge that a ground's colour is read from."""
_FAR = 70.0
"""Distance (RGB, of 441) from the ground's colour from which a pixel is part of an emoji."""
_LOOK = 16
"""Side at which pictures are compared."""


@dataclass(frozen=True)
class Seen:
    """What was read from a picture.

    Attributes:
        ground: A name of `GROUNDS`.
        relation: "left of" or "above" where an empty strip parts two things, "" for one.
        x, y: The middle of what is shown, as shares of the picture; NaN for an empty one.
    """

    ground: str
    relation: str
    x: float
    y: float

    @property
    def count(self) -> int:
        """How many things: 0, 1 or 2."""
        return 0 if np.isnan(self.x) else 2 if self.relation else 1


def look(pixels: np.ndarray) -> Seen:
    """Read a picture, uint8 (S, S, 3)."""
    values = pixels.astype(np.float64)
    edge = np.ones(pixels.shape[:2], bool)
    edge[_FRAME:-_FRAME, _FRAME:-_FRAME] = False
    colour = np.median(values[edge], axis=0)
    names = list(GROUNDS)
    ground = names[int(np.linalg.norm(np.array([GROUNDS[name] for name in names]) - colour, axis=1).argmin())]
    shown = np.linalg.norm(values - colour, axis=2) > _FAR
    if not shown.any():
        return Seen(ground, "", float("nan"), float("nan"))
    rows, columns = np.nonzero(shown)
    size = len(pixels)
    beside, above = _parted(shown.any(0)), _parted(shown.any(1))
    relation = "" if beside == above else "left of" if beside else "above"
    return Seen(
        ground,
        relation,
        float((columns.min() + columns.max() + 1) / 2 / size),
        float((rows.min() + rows.max() + 1) / 2 / size),
    )


def _parted(shown: np.ndarray) -> bool:
    """Whether an empty strip crosses the middle third between two things, along one axis: bool (S,)."""
    third = len(shown) // 3
    empty = np.flatnonzero(~shown[third:-third]) + third
    return any(shown[:place].any() and shown[place:].any() for place in empty)


def place_of(seen: Seen) -> tuple[int, int]:
    """In which third across and down what is shown has its middle: 0, 1, 2 each."""
    return min(2, int(3 * seen.x)), min(2, int(3 * seen.y))


@dataclass(frozen=True)
class Album:
    """Plain pictures that a picture is compared with.

    Attributes:
        emoji: Which.
        looks: float64 (N, 3 * 16 * 16), their pixels in small.
    """

    emoji: tuple[Emoji, ...]
    looks: np.ndarray

    @classmethod
    def of(cls, emoji: Sequence[Emoji], size: int) -> Album:
        """Every emoji, plain, at a size."""
        pictures = [draw(Scene((Item(one),), view="plain"), size) for one in emoji]
        return cls(tuple(emoji), small(np.stack(pictures)))

    def nearest(self, pictures: np.ndarray) -> np.ndarray:
        """Number (B,) of the emoji whose plain picture is nearest in pixels to each, uint8 (B, S, S, 3)."""
        return nearest(small(pictures), self.looks)


def small(pictures: np.ndarray) -> np.ndarray:
    """Pictures, uint8 (B, S, S, 3) with S a multiple of 16, as float64 (B, 768): means of squares."""
    count, size = pictures.shape[:2]
    step = size // _LOOK
    squares = pictures.reshape(count, _LOOK, step, _LOOK, step, 3).astype(np.float64)
    return squares.mean((2, 4)).reshape(count, -1)


def nearest(looks: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Number (B,) of the row of `known` (N, D) at the smallest distance to each of `looks` (B, D)."""
    return ((known**2).sum(1) - 2 * looks @ known.T).argmin(1)
