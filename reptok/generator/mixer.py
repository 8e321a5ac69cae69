"""MLP-Mixer that predicts the velocity of a token (paper, section 3.3 and appendix A).

B batch, S tokens in the sequence (extra, noisy, class, time), D width inside the mixer, K noisy tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reptok.generator.text import CrossAttention, TextContext


class TokenMLP(nn.Module):
    """Perceptron over the sequence axis, shared by all channels: (B, S, D) -> (B, S, D).

    A sequence has three to six tokens: as a layer on the transposed input its products are far too thin for
    a matrix unit, and their copies cost more than they do.
    """

    def __init__(self, num_tokens: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(num_tokens, hidden)
        self.act = nn.GELU()
        self.down = nn.Linear(hidden, num_tokens)

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            y = _Sums.apply(x, self.up.weight, self.up.bias, self.down.weight, self.down.bias)
            return y.to(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else y
        return self._as_products(x)

    def _as_products(self, x: Tensor) -> Tensor:
        """Products of the small weights with (S, B * D), whose rows are as long as can be: for a CPU."""
        columns = x.transpose(0, 1).flatten(1)
        hidden = self.act(torch.addmm(self.up.bias[:, None], self.up.weight, columns))
        out = torch.addmm(self.down.bias[:, None], self.down.weight, hidden)
        return out.unflatten(1, x.shape[::2]).transpose(0, 1)


class _Sums(torch.autograd.Function):
    """The perceptron with all products written out, element by element, for a compiler that fuses them.

    Forward is one pointwise kernel, and so is backward but for the gradients of the small weights, which
    are long sums; the hidden values are made again rather than kept.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: Tensor, up_bias: Tensor, down: Tensor, down_bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, up, up_bias, down)
        hidden = [F.gelu(row) for row in _combined(up, x.unbind(1), up_bias)]
        return torch.stack(_combined(down, hidden, down_bias), dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        (grad,) = grads
        x, up, up_bias, down = ctx.saved_tensors
        before = _combined(up, x.unbind(1), up_bias)
        after = _combined(down.T, grad.unbind(1))
        inner = [torch.ops.aten.gelu_backward(g, row) for g, row in zip(after, before, strict=True)]
        hidden, inside = torch.stack([F.gelu(row) for row in before], 1), torch.stack(inner, 1)  # (B, H, D)
        return (
            torch.stack(_combined(up.T, inner), dim=1),
            torch.einsum("bhd,bsd->hs", inside, x),
            inside.sum((0, 2)),
            torch.einsum("bsd,bhd->sh", grad, hidden),
            grad.sum((0, 2)),
        )


def _combined(weights: Tensor, rows: Sequence[Tensor], bias: Tensor | None = None) -> list[Tensor]:
    """Return the products of weights (T, S) with S rows, (B, D) each, and a bias (T,), as T rows."""
    combined = [
        functools.reduce(torch.add, (w * row for w, row in zip(line.unbind(), rows, strict=True)))
        for line in weights.unbind()
    ]
    return combined if bias is None else [row + b for row, b in zip(combined, bias.unbind(), strict=True)]


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
