"""Untrusted bytes to upright 8-bit RGB pixels: judged by their header, then decoded no larger than needed."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.crawl.reasons import Failure
from pipelines.dag.rows import is_ours

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The decoders that untrusted bytes may reach."""

MAX_PASSES = 12
"""Full passes over `max_pixels` that a JPEG's scans may cost together; a usual progressive one has ten."""

BAND_PIXELS = 1 << 20
"""Pixels that are converted at a time, so that no second image stands beside the decoded one."""
_BAND_BYTES = 24  # per pixel, for the widest mode

_SCAN = b"\xff\xda"  # never inside a scan's data, where 0xff is followed by zero
_ORIENTATION = 0x0112
_AS_STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF orientation to the view of an upright image in which its pixels lie as the file has them."""
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


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


class Header:
    """An image of which no pixel is decoded yet.

    Args:
        data: a whole file.
        bounds: what is refused unseen.

    Attributes:
        width: pixels, as stored.
        height: likewise.

    Raises:
        Failure: not_an_image, too_many_pixels, too_small, too_elongated or too_many_scans.
    """

    def __init__(self, data: bytes, bounds: Bounds) -> None:
        try:
            self._image = Image.open(io.BytesIO(data), formats=FORMATS)
        except Image.DecompressionBombError as error:
            raise Failure("too_many_pixels") from error
        except Exception as error:  # decoders raise anything for hostile headers
            if is_ours(error):
                raise
            raise Failure("not_an_image", str(error)) from error
        self.width, self.height = self._image.size
        _judge(self.width, self.height, bounds)
        self._scans = data.count(_SCAN) if self._image.format in ("JPEG", "MPO") else 0
        if self._scans * self.width * self.height > MAX_PASSES * bounds.max_pixels:
            raise Failure("too_many_scans", f"{self._scans} of {self.width} x {self.height}")

    def shrink(self, shorter_side: int) -> None:
        """Decode a JPEG at a half, a quarter or an eighth if its shorter side keeps so many pixels."""
        if self._scans:
            scale = shorter_side / min(self.width, self.height)
            self._image.draft("RGB", (round(self.width * scale), round(self.height * scale)))

    @property
    def bytes_to_decode(self) -> int:
        """The most memory that `decode` takes, the result included; measured for every format and mode."""
        image = self._image
        stored, shrunk = self.width * self.height, image.width * image.height
        channels = len(image.getbands())
        inside = 0  # the decoder's own
        if image.format == "WEBP":
            inside = 16 * stored
        elif self._scans > 1:  # the coefficients of all scans
            inside = 2 * channels * stored
        elif image.format == "TIFF":
            inside = _block_bytes(image)
        pil = 4 if channels > 1 else {"I": 4, "F": 4, "I;16": 2, "I;16B": 2}.get(image.mode, 1)
        return inside + (pil + 3) * shrunk + _BAND_BYTES * min(shrunk, BAND_PIXELS)

    def decode(self) -> Decoded:
        """Decode to 8-bit RGB.

        EXIF orientation is applied; 16-bit, grey, CMYK and palette images become 8-bit RGB; transparency lies
        on white; of an animation the first frame is taken.

        Raises:
            Failure: truncated or undecodable.
        """
        try:
            with self._image as image:
                before = image.size
                orientation = image.getexif().get(_ORIENTATION, 1)
                image.load()
                if image.format == "TIFF":  # is upright already, and has forgotten that it was not
                    orientation, turned = 1, image.size != before
                else:
                    turned = orientation in (5, 6, 7, 8)
                pixels = rgb_pixels(image, orientation)
        except Exception as error:  # decoders raise anything for damaged files
            if is_ours(error):
                raise
            raise Failure("truncated" if _is_truncation(error) else "undecodable", str(error)) from error
        width, height = (self.height, self.width) if turned else (self.width, self.height)
        return Decoded(pixels=pixels, width=width, height=height)


def _block_bytes(image: Image.Image) -> int:
    """Bytes of a TIFF's largest tile or strip, which is decoded at once; a tile may exceed its image."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    rows = min(int(tags.get(278, image.height)), image.height)
    pixels = max(int(tags.get(322, 0)) * int(tags.get(323, 0)), rows * image.width)
    bits = max((int(bits) for bits in tags.get(258, (1,))), default=1)
    return 2 * pixels * int(tags.get(277, 1)) * ((bits + 7) // 8)


def rgb_pixels(image: Image.Image, orientation: int = 1) -> np.ndarray:
    """8-bit RGB (H, W, 3) of any mode that PIL decodes, upright; transparency is laid on white.

    Raises:
        ValueError: a mode without a known range, such as floating point.
    """
    if orientation not in (2, 3, 4, 5, 6, 7, 8):
        orientation = 1
    width, height = image.size
    rows = max(1, BAND_PIXELS // width)
    if rows >= height and orientation == 1:
        return np.asarray(_rgb(image))
    pixels = np.empty((width, height, 3) if orientation > 4 else (height, width, 3), np.uint8)
    stored = _AS_STORED[orientation](pixels)
    for top in range(0, height, rows):
        stored[top : top + rows] = _rgb(image.crop((0, top, width, min(top + rows, height))))
    return pixels


def _rgb(image: Image.Image) -> Image.Image:
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


def _is_truncation(error: Exception) -> bool:
    return isinstance(error, EOFError) or any(
        cut in str(error) for cut in ("truncated", "broken data stream")
    )
