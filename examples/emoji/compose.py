"""Scenes by a seed: what is shown, where and how, for training or held out from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from examples.emoji.captions import caption, pick
from examples.emoji.pictures import Emoji
from examples.emoji.scene import GROUNDS, UPSIDE_DOWN, Item, Scene, is_seen, stands_out

PLACES = {
    "in the top left": (0.0, 0.0),
    "at the top": (0.5, 0.0),
    "in the top right": (1.0, 0.0),
    "on the left": (0.0, 0.5),
    "on the right": (1.0, 0.5),
    "in the bottom left": (0.0, 1.0),
    "at the bottom": (0.5, 1.0),
    "in the bottom right": (1.0, 1.0),
}
"""Where a single emoji may be: 0 at the left or upper edge, 1 at the other one."""
MARGIN = 0.03
TILTS = (-35, 35)
DIRECTIONS = {
    "left",
    "right",
    "up",
    "down",
    "upwards",
    "downwards",
    "tilted",
    "clockwise",
    "counterclockwise",
}
"""An emoji with one of these words in its name stays as it is."""
SIZES = {"small", "medium", "large"}


def plain(pictures: Sequence[Emoji]) -> Iterator[Scene]:
    """Each emoji on white with its name."""
    for emoji in pictures:
        yield Scene((Item(emoji),), view="plain", caption=emoji.name)


def composed(pictures: Sequence[Emoji], count: int, seed: int, split: str) -> Iterator[Scene]:
    """So many scenes of a split, each by its own number alone.

    Those for training ("train") show nothing that is held out. Of the others ("val") every second shows a
    held-out emoji, beside any other, and the rest a held-out combination of emoji that training knows.
    """
    known = [emoji for emoji in pictures if not emoji.held_out]
    unknown = [emoji for emoji in pictures if emoji.held_out]
    for number in range(count):
        rng = Random(f"{seed} {split} {number}")
        wanted = "" if split == "train" else ("emoji", "combination")[number % 2]
        while True:
            first = pick(rng, unknown if wanted == "emoji" else known)
            second = pick(rng, pictures if wanted == "emoji" else known)
            scene = _scene(first, second, rng)
            if scene is not None and scene.held_out == wanted:
                break
        yield replace(scene, caption=caption(scene, rng))


def alone(emoji: Emoji, seed: int, number: int) -> Scene:
    """One of the scenes that show an emoji by itself; each follows from its own number alone."""
    rng = Random(f"{seed} {emoji.text} {number}")
    while True:
        scene = _scene(emoji, emoji, rng)
        if scene is not None and len(scene.items) == 1:
            return replace(scene, caption=caption(scene, rng))


def _scene(first: Emoji, second: Emoji, rng: Random) -> Scene | None:
    """A scene with an emoji, and perhaps another one; None if one of them would not be seen on its ground."""
    ground, kind = pick(rng, tuple(GROUNDS)), rng.random()
    if kind < 0.3:
        size, side = _sized(rng, ((0.5, 0.72), (0.26, 0.36), (0.86, 0.98)))
        room = max(0.0, min(0.08, (1 - side) / 2))
        item = Item(first, 0.5 + _within(rng, room), 0.5 + _within(rng, room), side, size)
        scene = Scene((_posed(item, rng, 0.35),), ground)
    elif kind < 0.5:
        place = pick(rng, tuple(PLACES))
        size, side = _sized(rng, ((0.38, 0.48), (0.22, 0.3)))
        x, y = (0.5 + (at - 0.5) * (1 - side - 2 * MARGIN) for at in PLACES[place])
        scene = Scene((_posed(Item(first, x, y, side, size), rng, 0.25, tilted=False),), ground, place=place)
    else:
        twice = kind >= 0.9 or first == second
        items = _pair(first, first if twice else second, rng, alike=twice)
        upright = rng.random() < 0.4
        relation = "above" if upright else "left of"
        if upright:
            items = tuple(replace(item, x=item.y, y=item.x) for item in items)
        scene = Scene(items, ground, relation)
    fits = all(stands_out(item.emoji, ground) and not _contradicts(item) for item in scene.items)
    return scene if fits else None


def _pair(first: Emoji, second: Emoji, rng: Random, alike: bool) -> tuple[Item, ...]:
    """Two emoji, the first left of the second."""
    sides, sizes = [0.36 + 0.1 * rng.random() for _ in range(2)], ["", ""]
    if not alike and rng.random() < 0.2:
        sizes = ["small", "large"]
        sides = [0.2 + 0.06 * rng.random(), 0.48 + 0.05 * rng.random()]
        if rng.random() < 0.5:
            sizes, sides = sizes[::-1], sides[::-1]
    if alike:
        sides[1] = sides[0]
    items = []
    for emoji, x, side, size in zip((first, second), (0.26, 0.74), sides, sizes, strict=True):
        y = 0.5 + _within(rng, 0.1)
        items.append(Item(emoji, x + _within(rng, 0.02), y, side, size))
    if alike:
        return tuple(items)
    return tuple(_posed(item, rng, 0.12, tilted=False) for item in items)


def _posed(item: Item, rng: Random, share: float, tilted: bool = True) -> Item:
    """The item, or, for a share of them, turned or mirrored where one sees it."""
    if rng.random() >= share or DIRECTIONS & _words(item.emoji.name):
        return item
    turned, mirrored = pick(
        rng, ((UPSIDE_DOWN, False), (0, True), *([(pick(rng, TILTS), False)] if tilted else []))
    )
    return replace(item, turned=turned, mirrored=mirrored) if is_seen(item.emoji, turned, mirrored) else item


def _contradicts(item: Item) -> bool:
    """Whether a name tells a size, and the picture another."""
    return bool(item.size) and bool(SIZES & _words(item.emoji.name))


def _words(name: str) -> set[str]:
    return set(name.replace("-", " ").split())


def _sized(rng: Random, ranges: Sequence[tuple[float, float]]) -> tuple[str, float]:
    """A size that is said or not, and a side: most are neither small nor large."""
    index = max(0, int(rng.random() * (2 + len(ranges))) - 2)
    low, high = ranges[index]
    return ("", "small", "large")[index], low + (high - low) * rng.random()


def _within(rng: Random, most: float) -> float:
    return most * (2 * rng.random() - 1)
