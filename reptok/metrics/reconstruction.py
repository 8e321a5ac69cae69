"""Pixel metrics of reconstructions: PSNR and SSIM, one number per image.

Both take images in [-1, 1]. As in the authors' release, PSNR sees images clamped to the displayable range and
SSIM does not clamp, so that the figures compare with the paper's tables.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(images: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image.

    Args:
        images: (B, 3, H, W) in [-1, 1]; values outside are clamped.
        references: same shape and range.

    Returns:
        (B,) decibels; infinite for equal images.
    """
    _check_pair(images, references)
    error = (_displayable(images) - _displayable(references)).square().flatten(1).mean(1)
    return -10.0 * torch.log10(error)


def ssim(images: Tensor, references: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) with the usual Gaussian window of 11 pixels and sigma 1.5.

    Only windows that lie wholly inside the image count.

    Args:
        images: (B, 3, H, W) in [-1, 1], at least 11 pixels high and wide.
        references: same shape and range.

    Returns:
        (B,) in [-1, 1]; 1 for equal images.

    Raises:
        ValueError: if the shapes differ or the images are smaller than the window.
    """
    _check_pair(images, references)
    if min(images.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs at least {SSIM_WINDOW} pixels a side, got {tuple(images.shape[-2:])}")
    x, y = (images + 1) / 2, (references + 1) / 2
    mean_x, mean_y = _gaussian_mean(x), _gaussian_mean(y)
    var_x = _gaussian_mean(x * x) - mean_x**2
    var_y = _gaussian_mean(y * y) - mean_y**2
    covariance = _gaussian_mean(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).flatten(1).mean(1)


PER_IMAGE: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim}
"""What every reconstruction is scored by: f(images, originals), float32 (B, 3, H, W) each, gives (B,)."""


def _displayable(images: Tensor) -> Tensor:
    return ((images.double() + 1) / 2).clamp(0, 1)


def _gaussian_mean(x: Tensor) -> Tensor:
    """Weighted local mean, separable, without padding."""
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(x, weights.transpose(2, 3), groups=x.shape[1])


def _check_pair(images: Tensor, references: Tensor) -> None:
    if images.shape != references.shape or images.ndim != 4:
        raise ValueError(
            f"expected two image batches of one shape (B, 3, H, W), got {tuple(images.shape)} "
            f"and {tuple(references.shape)}"
        )
