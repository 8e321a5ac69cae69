"""Pixels in [-1, 1] of any size to the normalised square that a vision transformer expects."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize_square(images: Tensor, size: int) -> Tensor:
    """Centre-crop to a square, average-pool by the whole factor, then plain bilinear to ``size``.

    No antialiasing in the last step: 256 -> 224 is what the authors' encoder saw. Accepts (B, 3, H, W) or
    (3, H, W) and returns the same rank.
    """
    if images.ndim == 3:
        return resize_square(images[None], size)[0]
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = round((height - side) / 2), round((width - side) / 2)
    x = images[..., top : top + side, left : left + side]
    factor = side // size
    if factor > 1:
        x = F.avg_pool2d(x, factor)
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=False)


class Preprocess(nn.Module):
    """resize_square, [-1, 1] to [0, 1], then the encoder family's mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, size: int, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) or (3, H, W) in [-1, 1] to the same rank at ``size`` x ``size``.

        Raises:
            ValueError: The images are not floats of three channels.
        """
        if images.shape[-3] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images must be float (B, 3, H, W) in [-1, 1], got {images.dtype} {tuple(images.shape)}"
            )
        return ((resize_square(images, self.size) + 1) / 2 - self.mean) / self.std
