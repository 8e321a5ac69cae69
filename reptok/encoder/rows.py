"""The output rows of a plain vision transformer that become tokens, with no work that nobody uses.

Rows are reordered so that the tokens' rows come first, which attention does not notice. Then

- in the first block the other rows do not depend on anything that trains, so they record no graph, and the
  tokens' rows do not depend on the image, so they are normalised and projected once for the whole batch;
- in the last block only the tokens' rows are queried, and only they pass the feed-forward and the final norm.

The result and every gradient equal those of the plain forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class PlainTower:
    """Of timm's `VisionTransformer` with ordinary blocks."""

    arguments: Mapping[str, tuple[Any, ...]] = {"reg_tokens": (0, 256)}
    takes_extra_rows = True

    def fault(self, vit: Any) -> str | None:
        """Say why `token_rows` does not compute what this module does; None if it does."""
        if not isinstance(vit, VisionTransformer) or vit.cls_token is None:
            return f"{type(vit).__name__} has no [cls]"
        if not all(type(block) is Block and type(block.attn) is Attention for block in vit.blocks):
            return f"{type(vit).__name__} has blocks of another kind"
        return None

    def called_in_parts(self, vit: Any) -> list[nn.Module]:
        """Return the first and the last block."""
        return [vit.blocks[0], vit.blocks[-1]]

    def token_rows(self, vit: Any, pixels: Tensor, embeddings: Tensor, first: int) -> Tensor:
        """See :class:`reptok.encoder.tower.Tower`."""
        k = embeddings.shape[0]
        registers = [] if vit.reg_token is None else [vit.reg_token[0]]
        prefix = torch.cat([vit.cls_token[0], *registers])
        patches = vit.patch_embed(pixels)
        position = vit.pos_embed
        if not vit.no_embed_class:  # positions for [cls] as well
            num = prefix.shape[0]
            places = [*range(first, min(first + k, num)), *[first] * (first + k - num)]
            prefix, embeddings = prefix + position[0, :num], embeddings + position[0, places]
            position = position[:, num:]
        others = torch.cat([prefix[:first], prefix[first + k :]]).expand(pixels.shape[0], -1, -1)
        others = vit.norm_pre(torch.cat([others, patches + position], dim=1))  # (B, N, D)
        rows = vit.norm_pre(embeddings)[None]  # (1, K, D)
        *middle, last = vit.blocks
        if middle:
            x = _first_block(middle[0], rows, others)
            for block in middle[1:]:
                x = block(x)
        else:
            x = torch.cat([rows.expand(pixels.shape[0], -1, -1), others], dim=1)
        return vit.norm(_last_block(last, x, k))


def _heads(block: Any, x: Tensor) -> Tensor:
    """(B, N, c * D) to (B, c * H, N, d_head)."""
    return x.unflatten(-1, (-1, block.attn.head_dim)).transpose(1, 2)


def _finish(block: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention from prepared heads and the feed-forward, both residual, for the rows of ``x``."""
    y = F.scaled_dot_product_attention(block.attn.q_norm(q), block.attn.k_norm(k), v)
    y = block.attn.norm(y.transpose(1, 2).flatten(2))
    x = x + block.ls1(block.attn.proj(y))
    return x + block.ls2(block.mlp(block.norm2(x)))


def _first_block(block: Any, rows: Tensor, others: Tensor) -> Tensor:
    batch = others.shape[0]
    row_heads = _heads(block, block.attn.qkv(block.norm1(rows))).expand(batch, -1, -1, -1)
    other_heads = _heads(block, block.attn.qkv(block.norm1(others)))
    q, k, v = torch.cat([row_heads, other_heads], dim=2).chunk(3, dim=1)
    x = torch.cat([rows.expand(batch, -1, -1), others], dim=1)
    return _finish(block, x, q, k, v)


def _last_block(block: Any, x: Tensor, num_rows: int) -> Tensor:
    qkv, width = block.attn.qkv, block.attn.attn_dim
    bias_q, bias_kv = (None, None) if qkv.bias is None else qkv.bias.split([width, 2 * width])
    weight_q, weight_kv = qkv.weight.split([width, 2 * width])
    y = block.norm1(x)
    q = _heads(block, F.linear(y[:, :num_rows], weight_q, bias_q))
    k, v = _heads(block, F.linear(y, weight_kv, bias_kv)).chunk(2, dim=1)
    return _finish(block, x[:, :num_rows], q, k, v)
