"""The generator's space: tokens brought to mean 0 and variance 1, number by number or in all directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLOOR = 1e-3
"""Variance that whitening adds in all directions, as a share of their mean: what is next to constant in the
data stays small, and is no noise of full size that a network would have to learn."""


class TokenStats(nn.Module):
    """Raw tokens (B, N, D) to (token - mean) / std, and back; the identity until they are set.

    Whitened ones are also multiplied by C^(-1/2), where C is the covariance that is left: all directions then
    have about equal variance, and are told from noise at the same times of the flow. Not in the paper. It is
    the symmetric root, which is unique where eigenvectors are not.
    """

    mean: Tensor
    std: Tensor
    whitening: Tensor | None
    colouring: Tensor | None

    def __init__(self, token_dim: int, *, whitened: bool = False) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(token_dim))
        self.register_buffer("std", torch.ones(token_dim))
        for name in ("whitening", "colouring"):  # C^(-1/2) and C^(1/2)
            self.register_buffer(name, torch.eye(token_dim) if whitened else None)

    @torch.no_grad()
    def set(self, mean: Tensor, std: Tensor, covariance: Tensor | None = None) -> None:
        """Take over statistics of the training set.

        Args:
            mean: (D,).
            std: (D,).
            covariance: (D, D) of raw tokens, for whitened ones.

        Raises:
            ValueError: Wrong shapes, a standard deviation that is not positive, or a covariance that is
                missing or not wanted.
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
        if (covariance is None) != (self.whitening is None):
            raise ValueError("a covariance belongs to whitened tokens (generator.whiten), and to them alone")
        self.mean.copy_(mean)
        self.std.copy_(std)
        if covariance is not None and self.whitening is not None and self.colouring is not None:
            width = std.double()
            values, basis = torch.linalg.eigh(covariance.double() / width[:, None] / width)
            values = values.clamp(min=0)
            root = (values + FLOOR * values.mean()).sqrt()
            self.whitening.copy_(basis / root @ basis.T)
            self.colouring.copy_(basis * root @ basis.T)

    def normalize(self, tokens: Tensor) -> Tensor:
        """Raw to normalised."""
        return self._turned((tokens - self.mean) / self.std, self.whitening)

    def denormalize(self, tokens: Tensor) -> Tensor:
        """Normalised to raw."""
        return self._turned(tokens, self.colouring) * self.std + self.mean

    def _turned(self, tokens: Tensor, matrix: Tensor | None) -> Tensor:
        if matrix is None:
            return tokens
        with torch.autocast(tokens.device.type, enabled=False):  # data is not rounded as activations are
            return tokens.to(matrix.dtype) @ matrix
