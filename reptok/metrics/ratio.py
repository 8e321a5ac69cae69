"""How many times as far from real images samples are as real ones: of one scale on all networks.

N samples, M real images, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.protocols import RATIO
from reptok.metrics.uncertainty import Estimate


class Halves:
    """Real images in two halves, drawn once and for all: how far real images are from real images.

    The distance of samples from the first half, by that of the second one from it, is 1 for a generator that
    cannot be told from the data, 2 for one twice as far, and of one scale for all networks. It is FDr of
    "Representation Frechet Loss for Visual Generation" (2026), whose train and validation set the halves are
    here; as both distances are of equally many images, their bias is the same.

    Attributes:
        first: rows of one half.
        second: rows of the other one, which is not the larger.
    """

    def __init__(self, real: Tensor):
        """Divide features (M, D) of at least four real images."""
        rows = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))
        self.second, self.first = rows[: len(real) // 2], rows[len(real) // 2 :]
        self._real, self._known = real, FeatureStatistics.of(real, self.first)
        self.distance = self._from_first(real, self.second)

    def like(self, number: int) -> Tensor:
        """Rows of so many samples that stand against the first half: as many as the second has, or all.

        Where there is a sample for each real image, as of reconstructions, those of the second half.
        """
        if number == len(self._real):
            return self.second
        rows = torch.randperm(number, generator=torch.Generator().manual_seed(0))
        return rows[: len(self.second)]

    def ratio(self, samples: Tensor) -> float:
        """FDr of features (N, D) of at least two samples."""
        rows = self.like(len(samples))
        fewer = len(rows) < len(self.second)
        real = self._from_first(self._real, self.second[: len(rows)]) if fewer else self.distance
        return self._from_first(samples, rows) / real

    def _from_first(self, features: Tensor, rows: Tensor) -> float:
        return frechet_distance(FeatureStatistics.of(features, rows), self._known)


def over_networks(found: Mapping[str, Estimate], networks: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
    """Yield the mean of several networks' ratios (FDr^k of k networks), their names in its own."""
    names = sorted(networks)
    ratios = [found[f"{RATIO}_{name}"] for name in names if f"{RATIO}_{name}" in found]
    if len(ratios) == len(names) > 1:
        value, images = sum(ratio.value for ratio in ratios) / len(ratios), min(r.images for r in ratios)
        yield "_".join([RATIO, *names]), Estimate(value, float("nan"), images)
