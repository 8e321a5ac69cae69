"""Inception score (Salimans et al., 2016): exp of the mean KL divergence of an image's classes from all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SPLIT = 5000
"""Images of a group, ADM's; another number is another score."""


@dataclass(frozen=True)
class InceptionScore:
    """Mean over the groups, in [1, K], and their standard deviation, which is no standard error."""

    value: float
    spread: float


class ClassSums:
    """What a score needs of images that come one after the other: K + 1 numbers of a group, no logits.

    The mean divergence of a group is that of sum_k p_k log p_k, less sum_k m_k log m_k of the mean m.
    """

    def __init__(self, classes: int, split: int = SPLIT):
        """Begin.

        Args:
            classes: K.
            split: images of a group, in order; a last group that is shorter counts like the others.
        """
        self._split = split
        self._scores: list[Tensor] = []
        self._begin(classes)

    def update(self, logits: Tensor) -> None:
        """Add class logits (B, K), without the offset of the network's last layer, as ADM takes them."""
        while len(logits):
            part, logits = logits[: self._split - self._count], logits[self._split - self._count :]
            log_p = part.double().log_softmax(1)
            self._p += log_p.exp().sum(0)
            self._entropy += (log_p.exp() * log_p).sum()
            self._count += len(part)
            if self._count == self._split:
                self._scores.append(self._score())
                self._begin(len(self._p))

    def score(self) -> InceptionScore:
        """The score of all images so far.

        Raises:
            ValueError: no image.
        """
        scores = [*self._scores, *([self._score()] if self._count else [])]
        if not scores:
            raise ValueError("an Inception score needs images")
        found = torch.stack(scores)
        return InceptionScore(float(found.mean()), float(found.std(correction=0)))

    def _begin(self, classes: int) -> None:
        self._count = 0
        self._p = torch.zeros(classes, dtype=torch.float64)
        self._entropy = torch.zeros((), dtype=torch.float64)

    def _score(self) -> Tensor:
        mean = self._p / self._count
        return (self._entropy / self._count - torch.xlogy(mean, mean).sum()).exp()


def inception_score(logits: Tensor, split: int = SPLIT) -> InceptionScore:
    """Score images by the network's class logits (N, K): K at most, 1 where all images look alike.

    Args:
        logits: see `ClassSums.update`.
        split: see `ClassSums`.

    Raises:
        ValueError: no image.
    """
    sums = ClassSums(logits.shape[1], split)
    sums.update(logits)
    return sums.score()
