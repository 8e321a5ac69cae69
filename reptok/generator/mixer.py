"""MLP-Mixer that predicts the velocity of a token (paper, section 3.3 and appendix A).

B batch, S tokens in the sequence (extra, noisy, class, time), D width inside the mixer, K noisy tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reptok.generator.text import CrossAttention, TextContext


class TokenMLP(nn.Module):
    """Perceptron over the sequence axis, shared by all channels: (B, S, D) -> (B, S, D)."""

    def __init__(self, num_tokens: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(num_tokens, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x.transpose(1, 2)))).transpose(1, 2)


class ChannelMLP(nn.Sequential):
    """Perceptron over the channels, shared by all tokens."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MixerBlock(nn.Module):
    """Mix across tokens, look at a text if there is one, mix across channels; residual, pre-normalised."""

    def __init__(
        self, num_tokens: int, width: int, tokens_mlp_dim: int, channels_mlp_dim: int, text_heads: int = 0
    ) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.token_mlp = TokenMLP(num_tokens, tokens_mlp_dim)
        self.text_norm = nn.LayerNorm(width) if text_heads else None
        self.text_attention = CrossAttention(width, text_heads) if text_heads else None
        self.channel_norm = nn.LayerNorm(width)
        self.channel_mlp = ChannelMLP(width, channels_mlp_dim)

    def forward(self, x: Tensor, context: TextContext | None = None) -> Tensor:
        x = x + self.token_mlp(self.token_norm(x))
        if self.text_attention is not None and self.text_norm is not None and context is not None:
            x = x + self.text_attention(self.text_norm(x), context)
        return x + self.channel_mlp(self.channel_norm(x))


class Mixer(nn.Module):
    """Linear in, blocks, norm, linear out, over a sequence of fixed length (B, S, token_dim)."""

    def __init__(
        self,
        *,
        token_dim: int,
        num_tokens: int,
        dim: int,
        depth: int,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        text_heads: int = 0,
    ) -> None:
        super().__init__()
        self.linear_in = nn.Linear(token_dim, dim)
        self.blocks = nn.ModuleList(
            [MixerBlock(num_tokens, dim, tokens_mlp_dim, channels_mlp_dim, text_heads) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(dim)
        self.linear_out = nn.Linear(dim, token_dim)

    def forward(self, sequence: Tensor, time: Tensor, context: TextContext | None = None) -> Tensor:
        """Mix a sequence (B, S - 1, token_dim) with the time embedding (B, token_dim), which comes last.

        Returns:
            (B, S, token_dim).
        """
        x = self.linear_in(torch.cat([sequence, time[:, None]], dim=1))
        for block in self.blocks:
            x = block(x, context)
        return self.linear_out(self.norm(x))
