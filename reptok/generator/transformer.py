"""SiT-style transformer, the paper's attention baseline, over tokens or over the patches of a VAE latent.

Conditions add to the time embedding and modulate every block (adaLN-Zero); a text is attended to besides. B
batch, N tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reptok.generator.text import CrossAttention, TextContext


class SelfAttention(nn.Module):
    """Multi-head self-attention (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"generator.dim {width} must be a multiple of generator.heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3 * self.heads, -1)).transpose(1, 2).chunk(3, dim=1)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _zero_linear(features_in: int, features_out: int) -> nn.Linear:
    linear = nn.Linear(features_in, features_out)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """X * (1 + scale) + shift for x (B, N, D), shift and scale (B, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


class TransformerBlock(nn.Module):
    """Attention, text cross-attention if there is one, feed-forward; gates start at zero."""

    def __init__(self, width: int, heads: int, ff: int, with_text: bool) -> None:
        super().__init__()
        self.norms = nn.ModuleList(
            [nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2)]
        )
        self.attention = SelfAttention(width, heads)
        self.text_norm = nn.LayerNorm(width) if with_text else None
        self.text_attention = CrossAttention(width, heads) if with_text else None
        self.ff = nn.Sequential(nn.Linear(width, ff), nn.GELU(approximate="tanh"), nn.Linear(ff, width))
        self.modulation = _zero_linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor, context: TextContext | None = None) -> Tensor:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(F.silu(c)).chunk(6, dim=-1)
        x = x + gate_a[:, None] * self.attention(modulate(self.norms[0](x), shift_a, scale_a))
        if self.text_attention is not None and self.text_norm is not None and context is not None:
            x = x + self.text_attention(self.text_norm(x), context)
        return x + gate_f[:, None] * self.ff(modulate(self.norms[1](x), shift_f, scale_f))


class Transformer(nn.Module):
    """Linear in, learned positions, blocks, modulated norm, linear out."""

    def __init__(
        self,
        *,
        token_dim: int,
        num_tokens: int,
        dim: int,
        depth: int,
        heads: int,
        ff: int,
        with_text: bool = False,
    ) -> None:
        super().__init__()
        self.linear_in = nn.Linear(token_dim, dim)
        self.position = nn.Parameter(torch.randn(num_tokens, dim) * 0.02)
        self.blocks = nn.ModuleList([TransformerBlock(dim, heads, ff, with_text) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.modulation = _zero_linear(dim, 2 * dim)
        self.linear_out = _zero_linear(dim, token_dim)

    def forward(self, sequence: Tensor, c: Tensor, context: TextContext | None = None) -> Tensor:
        """Tokens (B, N, token_dim) and condition (B, dim) to (B, N, token_dim)."""
        x = self.linear_in(sequence) + self.position
        for block in self.blocks:
            x = block(x, c, context)
        return self.linear_out(modulate(self.norm(x), *self.modulation(F.silu(c)).chunk(2, dim=-1)))
