"""The data set: plain and composed pictures, captions and what is true of them; arrays or a table."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from examples.emoji.compose import composed, plain
from examples.emoji.pictures import Emoji, load
from examples.emoji.scene import Scene, draw
from reptok.bounds import Count, Pixels, Whole

SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class EmojiConfig:
    """Which pictures of emoji.

    Attributes:
        view: "plain" (each emoji once, on white, called by its name), "composed" (one or two of them moved,
            scaled, turned, mirrored, on coloured grounds, with captions that say so), or "both".
        count: Composed pictures for training.
        val_count: Composed pictures that are held out: half of them show a held-out emoji, half a held-out
            combination.
        seed: Of the composed pictures.
        image_size: Their side.
        font: A font file to draw the emoji from; "" takes them from our own file, which holds the same.
    """

    view: Literal["plain", "composed", "both"] = "both"
    count: Count = 4000
    val_count: Count = 400
    seed: Whole = 0
    image_size: Pixels = 64
    font: str = ""

    def __post_init__(self) -> None:
        if self.view not in ("plain", "composed", "both"):
            raise ValueError(f"data.emoji.view is plain, composed or both, not {self.view!r}")
        if min(self.count, self.val_count, self.image_size) < 1:
            raise ValueError("data.emoji: count, val_count and image_size must be at least 1")


@dataclass(frozen=True)
class Sample:
    """A picture.

    Attributes:
        image: uint8 (size, size, 3).
        scene: What it shows: caption, ground, emoji, places, why it is held out.
    """

    image: np.ndarray
    scene: Scene


def scenes(config: EmojiConfig, split: str, pictures: tuple[Emoji, ...] | None = None) -> Iterator[Scene]:
    """What the pictures of a split show, the plain ones first; nothing is drawn.

    Raises:
        ValueError: There is no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"a split is one of {', '.join(SPLITS)}, not {split!r}")
    pictures = load(config.font) if pictures is None else pictures
    if config.view != "composed":
        yield from (scene for scene in plain(pictures) if bool(scene.held_out) == (split == "val"))
    if config.view != "plain":
        count = config.count if split == "train" else config.val_count
        yield from composed(pictures, count, config.seed, split)


def samples(config: EmojiConfig, split: str) -> Iterator[Sample]:
    """The pictures of a split ("train", "val"); the same configuration gives the same bytes."""
    for scene in scenes(config, split):
        yield Sample(draw(scene, config.image_size), scene)


def table(config: EmojiConfig, split: str) -> pa.Table:
    """The pictures of a split as PNG, with captions and what is true of them, one row each, mixed."""
    rows = []
    for sample in samples(config, split):
        buffer = io.BytesIO()
        Image.fromarray(sample.image).save(buffer, "PNG")
        rows.append({"image": buffer.getvalue(), "caption": sample.scene.caption, **truth(sample.scene)})
    Random(f"{config.seed} {split}").shuffle(rows)
    return pa.Table.from_pylist(rows)


def truth(scene: Scene) -> dict[str, Any]:
    """What a picture shows, as the columns of a table; lists have an entry for each emoji."""
    items = scene.items
    return {
        "view": scene.view,
        "held_out": scene.held_out,
        "ground": scene.ground,
        "relation": scene.relation,
        "place": scene.place,
        "emoji": [item.emoji.text for item in items],
        "names": [item.emoji.name for item in items],
        "sizes": [item.size for item in items],
        "turned": [item.turned for item in items],
        "mirrored": [item.mirrored for item in items],
        "x": [item.x for item in items],
        "y": [item.y for item in items],
        "side": [item.side for item in items],
    }
