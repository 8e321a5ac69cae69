"""Residual projection of tokens to the decoder's width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenProjection(nn.Module):
    """LayerNorm(W u + b) + zero_pad(u) with u = token + offset; W, b and the offset start at zero.

    A fresh projection therefore passes the token unchanged into the first channels. The layer norm of an
    exact zero amplifies gradients by 1/sqrt(1e-5), about 316, which is why training warms up.
    """

    def __init__(self, token_dim: int, width: int, num_tokens: int = 1) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(num_tokens, token_dim))
        self.linear = nn.Linear(token_dim, width)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, D) to decoder inputs (B, N, width)."""
        u = tokens + self.offset
        return self.norm(self.linear(u)) + F.pad(u, (0, self.linear.out_features - u.shape[-1]))
