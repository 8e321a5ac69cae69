"""What a picture shows: emoji, where they stand and how, and the ground; and how it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from PIL import Image, ImageChops, ImageStat

from examples.emoji.pictures import HELD_OUT, SIDE, Emoji, place_of

GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (20, 20, 22),
    "grey": (150, 150, 152),
    "red": (214, 40, 40),
    "orange": (247, 140, 30),
    "yellow": (250, 222, 60),
    "green": (52, 150, 66),
    "turquoise": (60, 200, 190),
    "blue": (44, 92, 210),
    "purple": (124, 58, 168),
    "pink": (248, 160, 200),
    "brown": (122, 78, 44),
}
"""Colours of grounds, red, green and blue of 0..255."""
UPSIDE_DOWN = 180
_DISTINCT, _ENOUGH = 80.0, 0.35
"""An emoji stands out from a ground if such a share of it is so far from its colour (RGB, of 441)."""
_VISIBLE = 12.0
"""Mean difference, of 255, from which one sees that an emoji is turned or mirrored."""


@dataclass(frozen=True)
class Item:
    """An emoji in a picture.

    Attributes:
        emoji: Which.
        x, y: Its middle, as shares of the picture, from the left and from the top.
        side: That of the emoji's own square, as a share of the picture's.
        size: "small" or "large" if the caption says so, else "".
        turned: Degrees counterclockwise.
        mirrored: Left and right exchanged, before it is turned.
    """

    emoji: Emoji
    x: float = 0.5
    y: float = 0.5
    side: float = 1.0
    size: str = ""
    turned: int = 0
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        items: One emoji or two; the left or upper one comes first.
        ground: A name of `GROUNDS`.
        relation: Of the first to the second: "left of" or "above"; "" for one emoji.
        place: Of a single emoji that is not in the middle, such as "in the top left" or "at the bottom".
        view: "plain" or "composed".
        caption: What says all this.
    """

    items: tuple[Item, ...]
    ground: str = "white"
    relation: str = ""
    place: str = ""
    view: str = "composed"
    caption: str = ""

    @property
    def held_out(self) -> str:
        """Why training does not see it: "emoji", "combination", or "" if it may.

        A combination is an emoji with a ground's colour or with another emoji, in whatever order; one in ten
        of either kind is held out. A plain picture is no combination.
        """
        if any(item.emoji.held_out for item in self.items):
            return "emoji"
        if self.view == "plain":
            return ""
        texts = sorted({item.emoji.text for item in self.items})
        met = [(text, self.ground) for text in texts] + list(combinations(texts, 2))
        return "combination" if any(place_of(*words) < HELD_OUT for words in met) else ""


def draw(scene: Scene, size: int) -> np.ndarray:
    """The picture, uint8 (size, size, 3)."""
    canvas = Image.new("RGBA", (size, size), (*GROUNDS[scene.ground], 255))
    for item in scene.items:
        shown = _posed(item.emoji, item.turned, item.mirrored)
        side = max(1, round(item.side * size * shown.width / SIDE))
        left, top = round(item.x * size - side / 2), round(item.y * size - side / 2)
        layer = Image.new("RGBA", canvas.size)
        layer.paste(shown.resize((side, side), Image.Resampling.LANCZOS), (left, top))
        canvas = Image.alpha_composite(canvas, layer)
    return np.array(canvas.convert("RGB"))


def drawn(scenes: Iterable[Scene], size: int) -> np.ndarray:
    """Their pictures, uint8 (N, size, size, 3)."""
    return np.stack([draw(scene, size) for scene in scenes])


@cache
def stands_out(emoji: Emoji, ground: str) -> bool:
    """Whether one sees an emoji on a ground."""
    pixels = np.asarray(emoji.thumbnail, np.float64)
    shown = pixels[pixels[..., 3] > 127]
    far = np.linalg.norm(shown[:, :3] - GROUNDS[ground], axis=1) > _DISTINCT
    return bool(len(shown)) and bool(far.mean() >= _ENOUGH)


@cache
def is_seen(emoji: Emoji, turned: int, mirrored: bool) -> bool:
    """Whether an emoji looks otherwise when it is turned or mirrored."""
    after = _posed(emoji, turned, mirrored).resize(emoji.thumbnail.size, Image.Resampling.BOX)
    grey = Image.new("RGBA", after.size, (128, 128, 128, 255))
    before, after = (Image.alpha_composite(grey, picture) for picture in (emoji.thumbnail, after))
    return sum(ImageStat.Stat(ImageChops.difference(before, after)).mean[:3]) / 3 >= _VISIBLE


def _posed(emoji: Emoji, turned: int, mirrored: bool) -> Image.Image:
    """The emoji turned and mirrored; its square grows where its corners need it."""
    picture = emoji.picture
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if turned == UPSIDE_DOWN:
        return picture.transpose(Image.Transpose.ROTATE_180)
    return picture.rotate(turned, Image.Resampling.BICUBIC, expand=True) if turned else picture
