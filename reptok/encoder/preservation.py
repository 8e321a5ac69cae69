"""Cosine preservation loss: the adapted token keeps the direction of the frozen one (paper, equation 3)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def preservation_loss(token: Tensor, frozen_token: Tensor) -> Tensor:
    """1 - cos(token, frozen token) in float32, per sample: (B, N, D) twice -> (B,); its range is [0, 2].

    With several tokens the mean over them; the length of a token is not constrained.
    """
    return (1 - F.cosine_similarity(token.float(), frozen_token.float(), dim=-1)).mean(-1)
