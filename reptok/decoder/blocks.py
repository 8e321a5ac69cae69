"""Block of the decoder: cosine attention with axial rotary positions, SwiGLU, scale-only adaptive norms.

B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reptok.decoder.rope import rotate

EPS = 1e-6


class RMSNorm(nn.Module):
    """x * scale / rms(x) with a learned scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.scale.shape, self.scale.to(x.dtype), EPS)  # one kernel wants one dtype


class AdaRMSNorm(nn.Module):
    """x * (1 + A c) / rms(x): the condition scales; there is neither a shift nor a gate. A starts at zero."""

    lr_roles: ClassVar = {"": "mapping"}

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition_width, width, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], eps=EPS) * (1 + self.linear(c))[:, None]


class SwiGLU(nn.Module):
    """Gated feed-forward: value * silu(gate), then a zero-initialised projection back."""

    def __init__(self, width: int, ff: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * ff, bias=False)
        self.down = nn.Linear(ff, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * F.silu(gate))


class CosineAttention(nn.Module):
    """Self-attention whose logits are scale_h * cos(q, k), with one learned scale per head (initially 10)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = nn.Parameter(torch.full((heads,), 10.0))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend over (B, N, D); ``cos`` and ``sin`` are (N, H, d_head/4)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).unbind(2)  # (B, N, H, d_head)
        scale = self.scale.float().sqrt()[:, None]
        q, k = (rotate(_scaled_unit(y, scale), cos.to(y.dtype), sin.to(y.dtype)) for y in (q, k))
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=1.0)
        return self.out(y.transpose(1, 2).reshape(b, n, d))


def _scaled_unit(x: Tensor, scale: Tensor) -> Tensor:
    """Bring x to the length ``scale`` along its last axis, the factor in float32."""
    inverse_norm = (x.float().square().sum(-1, keepdim=True) + EPS).rsqrt()
    return x * (scale * inverse_norm).to(x.dtype)


class DecoderBlock(nn.Module):
    """Attention, then feed-forward; both residual and normalised by the time."""

    def __init__(self, width: int, heads: int, ff: int, condition_width: int) -> None:
        super().__init__()
        self.attention_norm = AdaRMSNorm(width, condition_width)
        self.attention = CosineAttention(width, heads)
        self.ff_norm = AdaRMSNorm(width, condition_width)
        self.ff = SwiGLU(width, ff)

    def forward(self, x: Tensor, c: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x, c), cos, sin)
        return x + self.ff(self.ff_norm(x, c))
