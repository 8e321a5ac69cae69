"""Mean and standard deviation of tokens, so that the flow sees data of about unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TokenStats(nn.Module):
    """Raw tokens (B, N, D) to (token - mean) / std, and back; the identity until they are set."""

    mean: Tensor
    std: Tensor

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(token_dim))
        self.register_buffer("std", torch.ones(token_dim))

    @torch.no_grad()
    def set(self, mean: Tensor, std: Tensor) -> None:
        """Take over statistics (D,) of the training set.

        Raises:
            ValueError: Wrong shapes, or a standard deviation that is not positive.
        """
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ValueError(
                f"token statistics must be of shape {tuple(self.mean.shape)}, "
                f"got {tuple(mean.shape)} and {tuple(std.shape)}"
            )
        if not bool((std > 0).all()):
            raise ValueError(
                "token statistics hold a standard deviation that is not positive; recompute them"
            )
        self.mean.copy_(mean)
        self.std.copy_(std)

    def normalize(self, tokens: Tensor) -> Tensor:
        """Raw to normalised."""
        return (tokens - self.mean) / self.std

    def denormalize(self, tokens: Tensor) -> Tensor:
        """Normalised to raw."""
        return tokens * self.std + self.mean
