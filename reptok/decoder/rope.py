"""Axial rotary positions on the canvas [-1, 1]^2.

Half of every head is rotated: d_head/8 frequencies for y and as many for x, pairing dimension i with
i + d_head/4; the other half of the head passes through. Frequencies run geometrically from pi to 10 pi over
all heads, neighbouring heads holding neighbouring frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def grid_positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """Cell centres (rows * columns, 2) in (y, x) order, row-major; the longer side spans [-1, 1]."""
    longer = max(rows, columns)

    def centres(n: int) -> Tensor:
        edges = torch.linspace(-n / longer, n / longer, n + 1, device=device)
        return (edges[:-1] + edges[1:]) / 2

    y, x = torch.meshgrid(centres(rows), centres(columns), indexing="ij")
    return torch.stack([y, x], dim=-1).reshape(-1, 2)


def axial_frequencies(head_dim: int, heads: int, low: float = math.pi, high: float = 10 * math.pi) -> Tensor:
    """Angular frequencies (2, heads, head_dim/8) for the axes y and x, equal on both.

    A geometric series from ``low`` (included) to ``high`` (not), in radians per unit of position.
    """
    if head_dim % 8:
        raise ValueError(f"the head width must be a multiple of 8 for axial rotary positions, got {head_dim}")
    per_axis = head_dim // 8
    values = torch.linspace(math.log(low), math.log(high), heads * per_axis + 1)[:-1].exp()
    return values.reshape(per_axis, heads).T.expand(2, heads, per_axis).contiguous()


def axial_angles(positions: Tensor, frequencies: Tensor) -> Tensor:
    """Rotation angles (N, heads, head_dim/4) of positions (N, 2): the y angles, then the x angles."""
    return torch.cat([positions[:, axis, None, None] * frequencies[axis] for axis in (0, 1)], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first half of the last axis; ``cos`` and ``sin`` broadcast over (..., head_dim/4)."""
    quarter = cos.shape[-1]
    a, b, rest = x.split([quarter, quarter, x.shape[-1] - 2 * quarter], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
