"""Square tiles for a vision-language model, from image files, at little cost.

A JPEG is decoded at the smallest of its built-in scales that still covers the tile (the DCT does the first
halvings), and what is left is resized on bytes. Normalising is the device's work: a tile travels as uint8.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from reptok.data.images import MAX_PIXELS, decode_image


def decode_tile(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Squeeze an image file into one tile, uint8 (size, size, 3), as InternVL does where it cuts none.

    Args:
        data: The file's bytes, of any format that `decode_image` reads.
        size: Side of the tile in pixels.
        max_pixels: Refuse larger images before their pixels are decoded.

    Raises:
        ValueError: Not an image, truncated, or too large.
    """
    return resize_tile(_scaled_jpeg(data, size, max_pixels), size)


def resize_tile(image: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (H, W, 3) to (size, size, 3), bicubic and antialiased; itself where it has that size."""
    if image.shape[:2] == (size, size):
        return image
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    pixels = F.interpolate(pixels, (size, size), mode="bicubic", align_corners=False, antialias=True)
    return pixels[0].permute(1, 2, 0).contiguous().numpy()


def stack_tiles(tiles: list[np.ndarray]) -> Tensor:
    """Tiles (S, S, 3) to one uint8 tensor (B, 3, S, S), channels last in memory."""
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2)


def _scaled_jpeg(data: bytes, size: int, max_pixels: int) -> np.ndarray:
    """The pixels, at a reduced scale where the file is a plain upright RGB or grey JPEG."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as file:
            plain = file.mode in ("RGB", "L") and file.getexif().get(0x0112, 1) == 1
            if plain and file.width * file.height <= max_pixels:
                file.draft(file.mode, (size, size))
                return np.array(file.convert("RGB"))
    except Exception:  # decoders raise anything for damaged files: the careful way has the words for it
        pass
    return decode_image(data, max_pixels)
