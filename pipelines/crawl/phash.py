"""The perceptual hash of COYO's `image_phash`: 64 bits that similar images share."""

from __future__ import annotations

import hashlib
import io
from functools import lru_cache

import numpy as np
from PIL import Image

SIDE, LOW = 32, 8
"""Pixels of the small grey image, and how many of its lowest frequencies count on each axis."""


def perceptual_hash(image: Image.Image) -> str:
    """Hash an image as `imagehash.phash` does, but for a bit or two, at a fraction of its cost.

    Returns:
        16 hex digits. Bit k says whether the k-th low DCT coefficient exceeds their median.
    """
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    cosines = _cosines()
    low = cosines @ np.asarray(grey, np.float64) @ cosines.T
    bits = np.packbits((low > np.median(low)).ravel())
    return bits.tobytes().hex()


def look(pixels: np.ndarray) -> int:
    """The hash of an image, uint8 (H, W, 3), as a number."""
    return int(perceptual_hash(Image.fromarray(pixels)), 16)


def hashes(jpg: bytes) -> dict[str, str]:
    """Columns `sha256` and `phash` of a picture's file."""
    with Image.open(io.BytesIO(jpg)) as image:
        return {"sha256": hashlib.sha256(jpg).hexdigest(), "phash": perceptual_hash(image)}


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """The first rows of the DCT-II matrix, (LOW, SIDE), in scipy's unnormalised scaling."""
    k, n = np.mgrid[0:LOW, 0:SIDE]
    return 2 * np.cos(np.pi * k * (2 * n + 1) / (2 * SIDE))
