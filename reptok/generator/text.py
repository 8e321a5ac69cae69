"""Cross-attention of a generator's tokens to a frozen language model (paper, section 4.2).

B batch, N tokens, D width of the generator, L text tokens, C text width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reptok.generator.conditioning import Condition


class TextContext(NamedTuple):
    """Projected text (B, L, D) and the mask (B, 1, 1, L) of what may be attended."""

    states: Tensor
    mask: Tensor


class TextProjection(nn.Module):
    """Language-model states to the generator's width; a learned state stands for "no text"."""

    def __init__(self, text_dim: int, width: int) -> None:
        super().__init__()
        self.null_text = nn.Parameter(torch.randn(text_dim) * 0.02)
        self.in_norm = nn.LayerNorm(text_dim)
        self.linear = nn.Linear(text_dim, width)
        self.out_norm = nn.LayerNorm(width)

    def forward(self, condition: Condition, batch: int) -> TextContext:
        """Text of the condition; dropped samples (all, when there is no text) see the null state alone."""
        null = self.null_text
        if condition.text is None:
            text, mask = null.expand(batch, 1, -1), torch.ones(batch, 1, dtype=torch.bool, device=null.device)
        else:
            text = condition.text.to(null.dtype)
            full = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device)
            mask = full if condition.mask is None else condition.mask
            dropped = condition.dropped
            if dropped is None:
                dropped = torch.zeros(len(text), dtype=torch.bool, device=text.device)
            text = torch.where(dropped[:, None, None], null, text)
            first = torch.zeros_like(full)
            first[:, 0] = True
            mask = torch.where(dropped[:, None], first, mask)
        return TextContext(self.out_norm(self.linear(self.in_norm(text))), mask[:, None, None])


class CrossAttention(nn.Module):
    """Tokens (B, N, D) attend to the text; the output projection starts at zero."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"generator.dim {width} must be a multiple of generator.heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: TextContext) -> Tensor:
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(context.states).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=context.mask)
        return self.out(y.transpose(1, 2).flatten(2))
