"""The second family's pictures: emoji, plain and composed, in the form that the recipes of the first take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch

from examples.emoji.compose import alone, composed, plain
from examples.emoji.pictures import load
from examples.emoji.scene import Scene, drawn
from examples.photographs.photographs import Split
from examples.zoo.crops import CropPool

Kind = Literal["new", "combination", "emoji"]
MEASURED = 256
"""Scenes of a kind that figures are taken on."""


def draw(split: Split, per_subject: int, seed: int, size: int = 64) -> CropPool:
    """Pictures of emoji, uint8 (N, 3, size, size); the same arguments give the same pool.

    For training, every emoji plain, and `per_subject - 1` times as many composed scenes; each picture is a
    subject of its own, since a scene is like no other. Held out ("val"), `per_subject` pictures of every
    emoji that training never sees, the first one plain, the others alone on a ground; the emoji is the
    subject.
    """
    if split == "train":
        return _pool(known_scenes(per_subject, seed), size)
    unknown = [emoji for emoji in load() if emoji.held_out]
    others = [alone(emoji, seed, turn) for turn in range(per_subject - 1) for emoji in unknown]
    pool = _pool([*plain(unknown), *others], size)
    return CropPool(pool.pixels, torch.arange(len(unknown)).repeat(per_subject))


def known_scenes(per_emoji: int, seed: int) -> list[Scene]:
    """What training sees: every emoji plain, then `per_emoji - 1` times as many composed scenes."""
    pictures = load()
    known = [emoji for emoji in pictures if not emoji.held_out]
    return [*plain(known), *composed(pictures, (per_emoji - 1) * len(known), seed, "train")]


def captioned(scenes: Iterable[Scene], size: int = 64) -> tuple[CropPool, list[str]]:
    """Scenes as pictures and captions, each picture a subject of its own."""
    found = list(scenes)
    return _pool(found, size), [scene.caption for scene in found]


def measured_scenes(kind: Kind, seed: int) -> list[Scene]:
    """`MEASURED` composed scenes: new ones of what training knows, held-out combinations, or emoji."""
    pictures = load()
    if kind == "new":
        return list(composed(pictures, MEASURED, seed, "train"))
    both = composed(pictures, 2 * MEASURED, seed, "val")
    return [scene for scene in both if scene.held_out == kind]


def _pool(scenes: list[Scene], size: int) -> CropPool:
    return CropPool(
        torch.from_numpy(drawn(scenes, size)).permute(0, 3, 1, 2).contiguous(), torch.arange(len(scenes))
    )
