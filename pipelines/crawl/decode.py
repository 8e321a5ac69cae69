"""Untrusted bytes to upright 8-bit RGB pixels: judged by their header, then decoded no larger than needed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pipelines.crawl.reasons import Failure

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The decoders that untrusted bytes may reach."""

MAX_PASSES = 12
"""Full passes over `max_pixels` that a JPEG's scans may cost together; a usual progressive one has ten."""

_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_SCAN = b"\xff\xda"  # never inside a scan's data, where 0xff is followed by zero


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What an image must be, judged by its header.

    Attributes:
        max_pixels: most pixels.
        min_size: least pixels of the shorter side.
        max_aspect_ratio: largest ratio of longer to shorter side.
    """

    max_pixels: int
    min_size: int
    max_aspect_ratio: float


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An upright image.

    Attributes:
        pixels: uint8 (H, W, 3); a scaled decode makes it smaller than the original.
        width: pixels of the original as it is meant to be seen (after its EXIF orientation).
        height: likewise.
    """

    pixels: np.ndarray
    width: int
    height: int


def decode(data: bytes, bounds: Bounds, shorter_side: int | None = None) -> Decoded:
    """Decode an image of any kind.

    EXIF orientation is applied; 16-bit, grey, CMYK and palette images become 8-bit RGB; transparency lies on
    white; of an animation the first frame is taken.

    Args:
        data: a whole file.
        bounds: what is refused unseen.
        shorter_side: a JPEG may be decoded at a half, a quarter or an eighth of its size if its shorter side
            keeps at least this many pixels; None decodes it whole.

    Raises:
        Failure: not_an_image, too_many_pixels, too_small, too_elongated, too_many_scans, truncated or
            undecodable.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Failure("too_many_pixels") from error
    except Exception as error:  # decoders raise anything for hostile headers
        raise Failure("not_an_image", str(error)) from error
    with image:
        width, height = image.size
        _judge(width, height, bounds)
        if image.format in ("JPEG", "MPO"):
            if data.count(_SCAN) * width * height > MAX_PASSES * bounds.max_pixels:
                raise Failure("too_many_scans", f"{data.count(_SCAN)} of {width} x {height}")
            if shorter_side is not None:
                scale = shorter_side / min(width, height)
                image.draft("RGB", (round(width * scale), round(height * scale)))
        try:
            orientation = image.getexif().get(_ORIENTATION, 1)
            image.load()
            pixels = np.asarray(to_rgb(_upright(image)))
        except Exception as error:
            reason = "truncated" if _is_truncation(error) else "undecodable"
            raise Failure(reason, str(error)) from error
    if orientation in _QUARTER_TURNS:
        width, height = height, width
    return Decoded(pixels=pixels, width=width, height=height)


def to_rgb(image: Image.Image) -> Image.Image:
    """Make 8-bit RGB of any mode that PIL decodes; transparency is laid on white.

    Raises:
        ValueError: a mode without a known range, such as floating point.
    """
    if image.mode in _SIXTEEN_BIT:
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating point pixels have no known range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _judge(width: int, height: int, bounds: Bounds) -> None:
    if width * height > bounds.max_pixels:
        raise Failure("too_many_pixels", f"{width} x {height}")
    if min(width, height) < max(1, bounds.min_size):
        raise Failure("too_small", f"{width} x {height}")
    if max(width, height) > bounds.max_aspect_ratio * min(width, height):
        raise Failure("too_elongated", f"{width} x {height}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged metadata leaves the pixels as they are
        return image
    return image


def _is_truncation(error: Exception) -> bool:
    return isinstance(error, EOFError) or any(
        cut in str(error) for cut in ("truncated", "broken data stream")
    )
