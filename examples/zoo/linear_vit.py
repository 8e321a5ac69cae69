"""Initial weights with which a ViT's class token starts as a linear code of the view instead of as noise.

A few heads of the first blocks each carry one patch to the class token: they attend by position, and what
they carry are the patch's principal components, each patch's in places of its own. The other branches start
at zero. From a random start, the routes alone take thousands of steps to find.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITION = 4.0
"""Value by which a patch's token says where it is, in a place of its own."""
CONTENT = 2.0
"""Root of the mean square of a patch's components together."""
FOCUS = 5.0
"""Logit with which a head attends to its patch; the others have about 0."""
SPARE = 19
"""Places that hold constants, so that an empty class token has a norm."""


@torch.no_grad()
def start_linear_vit(vit: Any, views: Tensor) -> None:
    """Overwrite weights of an untrained timm ViT whose positions are on the patches alone.

    Args:
        vit: class token first, LayerScale of 1.
        views: a few hundred training views (B, 3, S, S), as the network sees them.

    Raises:
        ValueError: It is too narrow or has too few heads for its patches.
    """
    width, heads = vit.embed_dim, vit.blocks[0].attn.num_heads
    patches = vit.pos_embed.shape[1]
    each = (width - patches - SPARE) // (patches + 1)
    if each < 1 or heads * len(vit.blocks) < patches or each > width // heads:
        raise ValueError(f"no linear start for {patches} patches in {width} places and {heads} heads a block")
    content = slice(patches, patches + each)
    constants = slice(content.stop, content.stop + SPARE)

    conv = vit.patch_embed.proj
    side = conv.kernel_size[0]
    flat = F.unfold(views, side, stride=side).transpose(1, 2).flatten(0, 1)  # (B * L, 3 * side * side)
    mean = flat.mean(0)
    basis = torch.linalg.eigh(torch.cov(flat.T)).eigenvectors.flip(1)[:, :each].T
    scale = CONTENT / ((flat - mean) @ basis.T).square().sum(1).mean().sqrt()
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    conv.weight[content] = scale * basis.view(each, *conv.weight.shape[1:])
    conv.bias[content] = -scale * basis @ mean
    nn.init.zeros_(vit.pos_embed)
    vit.pos_embed[0, :, :patches] = POSITION * torch.eye(patches)
    nn.init.zeros_(vit.cls_token)
    vit.cls_token[..., constants] = 1 - 2 * (torch.arange(SPARE) % 2).float()

    norm = ((POSITION**2 + CONTENT**2) / width) ** 0.5  # what layer normalisation divides a patch's token by
    for number, block in enumerate(vit.blocks):
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.mlp.fc2.weight)
        for head in range(heads):
            patch = number * heads + head
            if patch >= patches:
                break
            _carry(block.attn, head, patch, content, constants.stop + patch * each, norm)


def _carry(attn: Any, head: int, patch: int, content: slice, place: int, norm: float) -> None:
    """Let a head of an attention put a patch's components at `place` of every token."""
    width, own = attn.proj.in_features, attn.proj.in_features // attn.num_heads
    each = content.stop - content.start
    query, key, value = (part * width + head * own for part in range(3))
    attn.qkv.weight[query : query + own] = 0
    attn.qkv.weight[key] = 0
    attn.qkv.weight[key, patch] = 1
    attn.qkv.bias[query] = FOCUS * own**0.5 / (POSITION / norm)
    rows = torch.arange(each)
    attn.qkv.weight[value : value + each] = 0
    attn.qkv.weight[value + rows, content.start + rows] = norm
    attn.proj.weight[place + rows, head * own + rows] = 1
