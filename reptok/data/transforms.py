"""From pixels to what a network takes, and back.

Tables and files hold `uint8 (H, W, 3)`; networks take `float (B, 3, H, W)` in [-1, 1].
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reptok.bounds import Quantisation
from reptok.data.images import centre_crop, decode_image


def to_float(image: np.ndarray | Tensor) -> Tensor:
    """Map uint8 (..., H, W, 3) in [0, 255] to float32 (..., 3, H, W) in [-1, 1], on the same device."""
    pixels = image if isinstance(image, Tensor) else torch.from_numpy(image)
    return pixels.movedim(-1, -3).float().div_(127.5).sub_(1.0).contiguous()


def to_uint8(images: Tensor) -> np.ndarray:
    """Map float (..., 3, H, W) in [-1, 1], clamped, to uint8 (..., H, W, 3)."""
    return to_bytes(images).cpu().numpy()


def to_bytes(images: Tensor) -> Tensor:
    """As `to_uint8`, on the same device."""
    return quantised(images).movedim(-3, -1).contiguous()


def quantised(images: Tensor, how: Quantisation = "round") -> Tensor:
    """Map float (B, 3, H, W) in [-1, 1], clamped, to uint8 alike.

    Args:
        images: what a decoder gives.
        how: "round" to the nearest, as files do, or "truncate", as the authors' release does before FID.
    """
    values = images.detach().float().clamp(-1, 1)
    if how == "truncate":
        return (values * 127.5 + 127.5).to(torch.uint8)
    return ((values + 1) * 127.5).round().to(torch.uint8)


def load_image(data: bytes, size: int) -> Tensor:
    """Decode to a centre-cropped float32 (3, size, size) in [-1, 1]; errors as in `decode_image`."""
    return to_float(centre_crop(decode_image(data), size))


def flip(images: Tensor) -> Tensor:
    """Mirror (..., H, W) images left to right."""
    return images.flip(-1)
