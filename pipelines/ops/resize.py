"""Untrusted bytes to a small RGB JPEG: header first, then a scaled decode, then the resize.

The modes' names are img2dataset's.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from pipelines.ops.reasons import Failure

MODES = ("center_crop", "keep_ratio")
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""The decoders that untrusted bytes may reach."""

_ORIENTATION = 0x0112
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True, kw_only=True)
class ResizeConfig:
    """What an image must be, and what is made of it.

    Attributes:
        mode: "center_crop" (shorter side to `image_size`, then the central square) or "keep_ratio" (no crop).
        image_size: pixels of the result's shorter side.
        quality: JPEG quality of the result.
        min_size: least pixels of the original's shorter side.
        max_aspect_ratio: largest ratio of longer to shorter side.
        max_pixels: most pixels of the original, judged by its header.
    """

    mode: str = "center_crop"
    image_size: int = 256
    quality: int = 95
    min_size: int = 64
    max_aspect_ratio: float = 3.0
    max_pixels: int = 50_000_000

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"resize mode must be one of {', '.join(MODES)}, not {self.mode!r}")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A resized image and where it came from.

    Attributes:
        jpg: the JPEG file; equal input gives equal bytes.
        width: pixels of the JPEG.
        height: pixels of the JPEG.
        original_width: pixels of the original as it is meant to be seen (after its EXIF orientation).
        original_height: likewise.
        sha256: of `jpg`.
        phash: perceptual hash of the result, 16 hex digits.
    """

    jpg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    phash: str


def resize(data: bytes, config: ResizeConfig) -> Picture:
    """Decode an image of any kind and make the JPEG of it.

    EXIF orientation is applied; 16-bit, grey, CMYK and palette images become 8-bit RGB; transparency lies on
    white; of an animation the first frame is taken.

    Raises:
        Failure: not_an_image, too_many_pixels, too_small, too_elongated, truncated or undecodable.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise Failure("too_many_pixels") from error
    except Exception as error:  # decoders raise anything for hostile headers
        raise Failure("not_an_image", str(error)) from error
    with image:
        width, height = image.size
        _judge(width, height, config)
        scale = config.image_size / min(width, height)
        try:
            image.draft("RGB", (2 * round(width * scale), 2 * round(height * scale)))
            orientation = image.getexif().get(_ORIENTATION, 1)
            image.load()
            pixels = to_rgb(_upright(image))
        except Exception as error:
            reason = "truncated" if _is_truncation(error) else "undecodable"
            raise Failure(reason, str(error)) from error
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    pixels = _scale(pixels, (width, height), config)
    file = io.BytesIO()
    pixels.save(file, "JPEG", quality=config.quality, subsampling=0)
    jpg = file.getvalue()
    return Picture(
        jpg=jpg,
        width=pixels.width,
        height=pixels.height,
        original_width=width,
        original_height=height,
        sha256=hashlib.sha256(jpg).hexdigest(),
        phash=perceptual_hash(pixels),
    )


def perceptual_hash(image: Image.Image) -> str:
    """16 hex digits that similar images share, as in COYO's `image_phash`."""
    import imagehash  # brings scipy: only a process that hashes pays for it

    return str(imagehash.phash(image))


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
    return image.convert("RGB")


def _judge(width: int, height: int, config: ResizeConfig) -> None:
    if width * height > config.max_pixels:
        raise Failure("too_many_pixels", f"{width} x {height}")
    if min(width, height) < max(1, config.min_size):
        raise Failure("too_small", f"{width} x {height}")
    if max(width, height) > config.max_aspect_ratio * min(width, height):
        raise Failure("too_elongated", f"{width} x {height}")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged metadata leaves the pixels as they are
        return image


def _scale(pixels: Image.Image, size: tuple[int, int], config: ResizeConfig) -> Image.Image:
    """Resize to the target; `size` is the original's, which a scaled decode has rounded."""
    width, height = size
    scale = config.image_size / min(width, height)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    if target != pixels.size:
        smaller = target[0] < pixels.width
        filter = Image.Resampling.HAMMING if smaller else Image.Resampling.LANCZOS
        pixels = pixels.resize(target, filter)
    if config.mode == "center_crop":
        left, top = (target[0] - config.image_size) // 2, (target[1] - config.image_size) // 2
        pixels = pixels.crop((left, top, left + config.image_size, top + config.image_size))
    return pixels


def _is_truncation(error: Exception) -> bool:
    return isinstance(error, EOFError) or any(
        cut in str(error) for cut in ("truncated", "broken data stream")
    )
