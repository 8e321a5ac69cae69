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


def inception_score(logits: Tensor, split: int = SPLIT) -> InceptionScore:
    """Score images by the network's class logits (N, K): K at most, 1 where all images look alike.

    Args:
        logits: of the Inception network without the offset of its last layer, as ADM takes them.
        split: images of a group, in order; a last group that is shorter counts like the others.

    Raises:
        ValueError: no image.
    """
    if not len(logits):
        raise ValueError("an Inception score needs images")
    values = []
    for group in logits.split(split):
        log_p = group.double().log_softmax(1)
        log_mean = log_p.logsumexp(0) - torch.tensor(float(len(group)), dtype=torch.float64).log()
        values.append((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())
    found = torch.stack(values)
    return InceptionScore(float(found.mean()), float(found.std(correction=0)))
