"""Image files to pixels, uint8 (H, W, 3), and back."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded: of PIL's other formats some start programs (EPS), and none is a photograph's."""


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS, background: str = "white") -> np.ndarray:
    """Decode an image file to RGB uint8 (H, W, 3), upright as its EXIF says.

    Args:
        data: The file's bytes.
        max_pixels: Refuse larger images before their pixels are decoded.
        background: What transparent pixels are laid on: a colour's name, or #rrggbb.

    Raises:
        ValueError: Not an image, truncated, or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as file:
            if file.width * file.height > max_pixels:
                raise ValueError(f"image of {file.width} x {file.height} has more than {max_pixels} pixels")
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip instead of scaling
                image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
            return np.array(image.convert("RGB"))
    except Exception as error:  # hostile bytes raise anything in the decoders: IndexError, struct.error, ...
        raise ValueError(f"cannot decode image: {error}") from error


def encode_jpeg(image: np.ndarray, quality: int = 95, subsampling: str = "4:2:0") -> bytes:
    """Encode uint8 (H, W, 3) as JPEG; the same pixels give the same bytes.

    Args:
        image: The pixels.
        quality: 1 to 100.
        subsampling: How many of its colours are kept: "4:2:0" (a quarter), "4:2:2" (half) or "4:4:4" (all).
    """
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return buffer.getvalue()


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side to `size` and keep the central square.

    Args:
        image: uint8 (H, W, 3).
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3); the image itself when it has that size already.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = Image.fromarray(image).resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )
    return np.array(square)


def adm_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Make the square of ADM's reference sets, pixel for pixel (Dhariwal & Nichol, 2021).

    Halved by box filters while the shorter side is at least twice `size`, then scaled to it by a bicubic
    filter, then cut out of the middle; of an odd remainder the larger half lies below and right.

    Args:
        image: uint8 (H, W, 3).
        size: Side of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    picture = Image.fromarray(image)
    while min(picture.size) >= 2 * size:
        picture = picture.resize((picture.width // 2, picture.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(picture.size)
    picture = picture.resize(
        (round(picture.width * scale), round(picture.height * scale)), resample=Image.Resampling.BICUBIC
    )
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return np.array(picture)[top : top + size, left : left + size]


CROPS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {"centre": centre_crop, "adm": adm_crop}
"""How a picture becomes a square: f(uint8 (H, W, 3), side) gives uint8 (side, side, 3)."""
