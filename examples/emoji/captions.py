"""Captions that say exactly what a composed picture shows, in a few forms."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

from examples.emoji.names import article, phrase
from examples.emoji.scene import UPSIDE_DOWN, Item, Scene

RELATIONS = {
    "left of": (("left of", "to the left of"), ("right of", "to the right of")),
    "above": (("above", "over"), ("below", "under")),
}
"""By the relation of the first emoji to the second: how to say so, and how to say it of the second."""
TWICE = {"left of": "side by side", "above": "one above the other"}

T = TypeVar("T")


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of some options, by one number of the generator."""
    return options[int(rng.random() * len(options))]


def caption(scene: Scene, rng: Random) -> str:
    """Words for a scene; a plain one is called by the emoji's name alone."""
    if scene.view == "plain":
        return scene.items[0].emoji.name
    ground = f"{article(scene.ground)} ground"
    first = described(scene.items[0])
    if scene.place:
        on = pick(rng, ("on", "on", "of"))
        said = f"{first} {scene.place} {on} {ground}"
        return pick(rng, (said, said, f"{ground} with {first} {scene.place}"))
    if not scene.relation:
        shown = first
    elif scene.items[0].emoji == scene.items[1].emoji:
        shown = f"{first} twice, {TWICE[scene.relation]},"
    else:
        forward, backward = RELATIONS[scene.relation]
        second = described(scene.items[1])
        if rng.random() < 0.6:
            shown = f"{first} {pick(rng, forward)} {second}"
        else:
            shown = f"{second} {pick(rng, backward)} {first}"
    last = shown.rstrip(",")
    forms = (f"{shown} on {ground}", f"{ground} with {last}", f"on {ground}, {last}")
    return pick(rng, (forms[0], forms[0], *forms))


def described(item: Item) -> str:
    """An item with its article and what is special about it: "a small upside-down red apple"."""
    turned = "" if not item.turned else "upside-down" if item.turned == UPSIDE_DOWN else "tilted"
    words = (item.size, "mirrored" if item.mirrored else "", turned)
    return phrase(item.emoji.name, *(word for word in words if word))
