"""Vision transformers with rotary positions, as timm's `eva` builds them; DINOv3 is one.

Its storage tokens are registers. Patches are rotated by where they are, [cls] and registers are not, so that
the prefix rows may stand in another order. Every block runs whole, for all rows: unlike in `rows`, none is
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.eva import Eva, EvaBlock
from torch import Tensor, nn


class EvaTower:
    """Of timm's `Eva` with blocks that normalise first."""

    arguments: Mapping[str, tuple[Any, ...]] = {
        "num_reg_tokens": (0, 256),
        "swiglu_mlp": (0, 1),
        "qkv_fused": (0, 1),
        "use_abs_pos_emb": (0, 1),
        "use_rot_pos_emb": (0, 1),
        "use_fc_norm": (0, 1),
        "rope_type": ("cat", "dinov3"),
        "rope_temperature": (1, 1e6),
        "rope_rotate_half": (0, 1),
    }

    takes_extra_rows = False  # blocks count the rows that are not rotated

    def fault(self, vit: Any) -> str | None:
        """Say why `token_rows` does not compute what this module does; None if it does."""
        if not isinstance(vit, Eva) or vit.cls_token is None:
            return f"{type(vit).__name__} has no [cls]"
        if not all(type(block) is EvaBlock for block in vit.blocks):
            return "it has blocks that normalise last"
        if vit.rope_mixed or vit.patch_drop is not None:
            return "it has rotations that differ by block, or drops patches"
        return None

    def token_rows(self, vit: Any, pixels: Tensor, embeddings: Tensor, first: int) -> Tensor:
        """See :class:`reptok.encoder.tower.Tower`."""
        k, prefix = embeddings.shape[0], vit.num_prefix_tokens
        x, rotations = vit._pos_embed(vit.patch_embed(pixels))  # timm's forward_features begins so
        if vit.pos_embed is not None and not vit.no_embed_class:  # positions for [cls] as well
            embeddings = embeddings + vit.pos_embed[0, first : first + k]
        rows = embeddings.expand(pixels.shape[0], -1, -1)
        x = vit.norm_pre(torch.cat([rows, x[:, :first], x[:, first + k : prefix], x[:, prefix:]], dim=1))
        for block in vit.blocks:
            x = block(x, rotations)
        return vit.norm(x[:, :k])

    def called_in_parts(self, vit: Any) -> list[nn.Module]:
        """Return no block."""
        return []
