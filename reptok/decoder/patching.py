"""Latents to sequences of patches and back; inside a patch the order is (row, column, channel)."""

from __future__ import annotations

from torch import Tensor


def patchify(latent: Tensor, patch_size: int) -> Tensor:
    """Cut (B, C, H, W) into (B, H/p * W/p, p * p * C), patches in row-major order, channels fastest."""
    b, c, h, w = latent.shape
    p = patch_size
    if h % p or w % p:
        raise ValueError(
            f"a latent of {h}x{w} does not divide into patches of {p}; choose another patch_size"
        )
    x = latent.reshape(b, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // p) * (w // p), p * p * c)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`patchify` for a grid of (rows, columns): (B, N, p * p * C) -> (B, C, H, W)."""
    b, _, features = patches.shape
    p, (rows, columns) = patch_size, grid
    x = patches.reshape(b, rows, columns, p, p, features // (p * p))
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, -1, rows * p, columns * p)
