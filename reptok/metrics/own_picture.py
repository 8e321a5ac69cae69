"""Is a sample nearer to the picture whose caption it was made from than to others? No classes are needed.

Every sample is held against its own picture and each of the others. Where captions said nothing, as when they
are permuted, the own picture would win every second time: over all permutations exactly, whatever the samples
look like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

PERMUTED = 0.5
"""The share of captions that say nothing."""


@dataclass(frozen=True)
class OwnPicture:
    """How often the own picture wins.

    Attributes:
        share: Of the pairs of a sample and another picture, in [0, 1].
        error: Standard error of the share over the choice of pictures.
    """

    share: float
    error: float

    @property
    def gain(self) -> float:
        """How much more often than with captions permuted."""
        return self.share - PERMUTED


def own_picture(samples: Tensor, pictures: Tensor, centre: Tensor) -> OwnPicture:
    """Compare features of samples with those of pictures, row by row.

    Args:
        samples: (N, D) features of the samples, N at least 3.
        pictures: (N, D) features of the pictures whose captions they were made from.
        centre: (D,) mean feature of training pictures; nearness is the cosine around it.

    Raises:
        ValueError: Fewer than three rows, or their numbers differ.
    """
    if len(samples) != len(pictures) or len(samples) < 3:
        raise ValueError(f"need as many samples as pictures, three at least: {len(samples)}, {len(pictures)}")
    near = F.normalize(samples.double() - centre, dim=1) @ F.normalize(pictures.double() - centre, dim=1).T
    own = near.diagonal()[:, None]
    wins = (own > near).double() + 0.5 * (own == near)  # (sample, other picture)
    wins.fill_diagonal_(0)
    number = len(wins)
    share = wins.sum() / (number * (number - 1))
    # A U-statistic of pictures in pairs: what one picture contributes, as sample and as rival.
    part = (wins + wins.T).sum(1) / (2 * (number - 1))
    return OwnPicture(float(share), 2 * float(part.std()) / math.sqrt(number))
