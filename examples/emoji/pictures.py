"""The pictures: those of `pictures.parquet`, or the same drawn from the font.

The file holds each emoji as the font draws it at the one size that it has (136 x 128 pixels), without loss;
whatever is shown at another size begins there, so that file and font give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFont, features

from examples.emoji.names import has_place, spoken

PICTURES = Path(__file__).parent / "pictures.parquet"
FONT_SIZE, DRAWN = 109, (136, 128)
"""The size that the font's bitmaps have, and theirs in pixels."""
SIDE = 136
"""Of a square picture, in pixels."""
THUMBNAIL = SIDE // 4
VERSION = b"font"
"""Key of the file's metadata: the font that it was made from, its name and digest."""
HELD_OUT = 0.1
"""Share of emoji and of combinations that training never sees."""
_DEBIAN = "Debian's is in the package fonts-noto-color-emoji"
_TWINS = re.compile("[\u200d\ufe0f\u2640\u2642]")


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Attributes:
        text: Its code points.
        name: What it is called, such as "red apple".
        drawn: The font's picture, RGBA of `DRAWN`, as a lossless WEBP file.
    """

    text: str
    name: str
    drawn: bytes

    @cached_property
    def picture(self) -> Image.Image:
        """RGBA (SIDE, SIDE), on nothing."""
        square = Image.new("RGBA", (SIDE, SIDE))
        with Image.open(io.BytesIO(self.drawn), formats=["WEBP"]) as file:
            square.paste(file.convert("RGBA"), ((SIDE - DRAWN[0]) // 2, (SIDE - DRAWN[1]) // 2))
        return square

    @cached_property
    def thumbnail(self) -> Image.Image:
        """The same, RGBA (THUMBNAIL, THUMBNAIL): enough to see what one sees."""
        return self.picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)

    @cached_property
    def held_out(self) -> bool:
        """Whether training never sees it: one in ten, by its code points.

        A man, a woman and a person who do the same are one in this: which of them it is does not count.
        """
        alike = re.sub("[\U0001f468\U0001f469]", "\U0001f9d1", _TWINS.sub("", self.text))
        return place_of(alike) < HELD_OUT


def place_of(*words: str) -> float:
    """A number in [0, 1) that follows from words alone, evenly spread."""
    digest = hashlib.sha256("\0".join(("noto", *words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def load(font: str = "") -> tuple[Emoji, ...]:
    """All emoji in the order of their code points, from our file, or drawn from a font file.

    Raises:
        FileNotFoundError: There is no such font.
        ValueError: It is no font of colour bitmaps of this size, or lacks an emoji of our file.
    """
    rows = pq.read_table(PICTURES).to_pylist()
    if not font:
        return tuple(Emoji(row["emoji"], row["name"], row["webp"]) for row in rows)
    return tuple(_drawn(font, [(row["emoji"], row["name"]) for row in rows]))


def named(font: str) -> tuple[Emoji, ...]:
    """Every emoji that has a place among ours (`has_place`) and that a font draws, by the package `emoji`."""
    import emoji  # of the `dev` extra: the names are in our file

    whole = (
        text for text, about in emoji.EMOJI_DATA.items() if about["status"] == emoji.STATUS["fully_qualified"]
    )
    names = {text: spoken(emoji.EMOJI_DATA[text]["en"]) for text in sorted(whole)}
    wanted = [(text, name) for text, name in names.items() if has_place(text, name)]
    seen: set[bytes] = set()
    found = []
    for one in _drawn(font, wanted, lenient=True):
        if one.drawn not in seen:
            seen.add(one.drawn)
            found.append(one)
    return tuple(found)


def save(pictures: Iterable[Emoji], font: str, file: Path = PICTURES) -> None:
    """Write the file that `load` reads."""
    rows = list(pictures)
    table = pa.table(
        {
            "emoji": [one.text for one in rows],
            "name": [one.name for one in rows],
            "webp": pa.array([one.drawn for one in rows], pa.binary()),
        }
    ).replace_schema_metadata({VERSION: version_of(font)})
    pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=False)


def version_of(font: str) -> str:
    """Family, style and digest of a font file."""
    return f"{' '.join(map(str, _opened(font).getname()))} {digest_of(font)}"


def digest_of(font: str = "") -> str:
    """What the pictures are drawn from: 16 hex digits of our file, or of a font.

    Raises:
        FileNotFoundError: There is no such font.
    """
    path = Path(font).expanduser() if font else PICTURES
    if not path.is_file():
        raise FileNotFoundError(f"data.emoji.font={font}: there is no such file; {_DEBIAN}")
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _opened(font: str) -> ImageFont.FreeTypeFont:
    path = Path(font).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no font {font!r}; {_DEBIAN}")
    if not features.check("raqm"):
        raise ValueError("this Pillow has no Raqm, which joins code points; leave data.emoji.font empty")
    try:
        return ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.RAQM)
    except OSError as error:
        raise ValueError(f"{font} is no font with bitmaps of size {FONT_SIZE}: {error}") from error


def _drawn(font: str, wanted: Iterable[tuple[str, str]], lenient: bool = False) -> Iterator[Emoji]:
    """Draw emoji; one that the font lacks is left out, or refused."""
    opened = _opened(font)
    for text, name in wanted:
        core, _ = opened.getmask2(text, mode="RGBA")
        picture = Image.Image()._new(core)
        if picture.size == DRAWN and picture.getbbox() is not None:
            yield Emoji(text, name, _webp(picture))
        elif not lenient:
            raise ValueError(f"{font} has no picture of {name!r}; leave data.emoji.font empty")


def _webp(picture: Image.Image) -> bytes:
    """A WEBP file without loss; what nothing shows of has no colour."""
    shown = picture.getchannel("A").point(lambda alpha: 255 if alpha else 0)
    clean = Image.composite(picture, Image.new("RGBA", picture.size), shown)
    buffer = io.BytesIO()
    clean.save(buffer, "WEBP", lossless=True, quality=75, method=4, exact=True)
    return buffer.getvalue()
