"""Improved precision and recall (Kynkaanniemi et al., 2019): on the real manifold, and all over it?

The manifold of a set is the union of balls around its features, each as wide as the distance to its k-th
nearest neighbour. Precision is the share of samples within the real manifold, recall the share of real
images within that of the samples. Both need sets of about the same size; ADM takes 10,000 real images.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 3
BLOCK = 2048
"""Rows at a time: a distance matrix of 50,000 by 50,000 would take 20 GB."""


@dataclass(frozen=True)
class PrecisionRecall:
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(samples: Tensor, references: Tensor, neighbours: int = NEIGHBOURS) -> PrecisionRecall:
    """Compare features of samples (N, D) with those of real images (M, D).

    Args:
        samples: features of the generated images.
        references: features of the real ones, by the same network.
        neighbours: k of the ball's radius, the image itself not counted.

    Raises:
        ValueError: a set has no more than `neighbours` rows, or the widths differ.
    """
    if samples.shape[1:] != references.shape[1:]:
        raise ValueError(f"features of two kinds: {tuple(samples.shape)} and {tuple(references.shape)}")
    if min(len(samples), len(references)) <= neighbours:
        raise ValueError(
            f"{neighbours} neighbours need more than {neighbours} images a set, "
            f"not {len(samples)} and {len(references)}"
        )
    centre = references.double().mean(0)  # distances stay, and their rounding shrinks
    made, real = samples.double() - centre, references.double() - centre
    return PrecisionRecall(
        precision=_covered(made, real, _radii(real, neighbours)),
        recall=_covered(real, made, _radii(made, neighbours)),
    )


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """Squared distance (N,) of each point (N, D) to its k-th nearest neighbour."""
    rows = []
    for start in range(0, len(points), BLOCK):
        distances = _squared(points[start : start + BLOCK], points)
        own = torch.arange(start, start + len(distances), device=points.device)
        distances.scatter_(1, own[:, None], torch.inf)  # itself, whatever rounding makes of its distance
        rows.append(distances.kthvalue(neighbours, dim=1).values)
    return torch.cat(rows)


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of points (N, D) that lie in any of the balls: centres (M, D), squared radii (M,)."""
    inside = 0
    for start in range(0, len(points), BLOCK):
        inside += int((_squared(points[start : start + BLOCK], centres) <= radii).any(1).sum())
    return inside / len(points)


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (A, B) of rows."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist").square_()
