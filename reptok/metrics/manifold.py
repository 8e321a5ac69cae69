"""Improved precision and recall (Kynkaanniemi et al., 2019): on the real manifold, and all over it?

The manifold of a set is the union of balls around its features, each as wide as the distance to its k-th
nearest neighbour. Precision is the share of samples within the real manifold, recall the share of real
images within that of the samples. Both need sets of about the same size; ADM takes 10,000 real images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = 3
BLOCK = 2048
"""Rows and columns at a time: a distance matrix of 50,000 by 50,000 would take 20 GB."""


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
    return PrecisionRecall(
        precision=_covered(samples, references, _radii(references, neighbours, centre), centre),
        recall=_covered(references, samples, _radii(samples, neighbours, centre), centre),
    )


def _radii(points: Tensor, neighbours: int, centre: Tensor) -> Tensor:
    """Squared distance (N,) of each point (N, D) to its k-th nearest neighbour."""
    rows = []
    for first, some in _blocks(points, centre):
        nearest = torch.empty(len(some), 0, dtype=some.dtype, device=some.device)
        for second, others in _blocks(points, centre):
            distances = _squared(some, others)
            if first == second:
                distances.fill_diagonal_(torch.inf)  # itself, whatever rounding makes of its distance
            found = distances.topk(min(neighbours, len(others)), dim=1, largest=False).values
            nearest = torch.cat([nearest, found], 1)
        rows.append(nearest.kthvalue(neighbours, dim=1).values)
    return torch.cat(rows)


def _covered(points: Tensor, centres: Tensor, radii: Tensor, centre: Tensor) -> float:
    """Share of points (N, D) that lie in any of the balls: centres (M, D), squared radii (M,)."""
    inside = 0
    for _, some in _blocks(points, centre):
        found = torch.zeros(len(some), dtype=torch.bool, device=some.device)
        for start, others in _blocks(centres, centre):
            found |= (_squared(some, others) <= radii[start : start + len(others)]).any(1)
        inside += int(found.sum())
    return inside / len(points)


def _blocks(points: Tensor, centre: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Where a block of rows starts, and the rows around the centre, in float64."""
    for start in range(0, len(points), BLOCK):
        yield start, points[start : start + BLOCK].double() - centre


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (A, B) of rows."""
    return torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist").square_()
