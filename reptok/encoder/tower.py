"""What the encoder asks of a vision transformer; a family is a file (`rows`, `eva`) and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reptok.encoder.eva import EvaTower
from reptok.encoder.rows import PlainTower


class Tower(Protocol):
    """How a family computes; it holds no weights, those are of timm's module.

    A family's modules have `cls_token` (1, 1, D), `reg_token` (1, R, D) or None, in this order before the
    patches; `patch_embed`, `blocks`, `num_features` and `set_input_size` as timm's have them.

    Attributes:
        arguments: What a folder may give an architecture beside what all families take, with bounds.
        takes_extra_rows: Whether `token_rows` takes more embeddings than the prefix has from ``first`` on.
    """

    arguments: Mapping[str, tuple[Any, ...]]
    takes_extra_rows: bool

    def fault(self, vit: Any) -> str | None:
        """Say why `token_rows` does not compute what this module does; None if it does."""

    def token_rows(self, vit: Any, pixels: Tensor, embeddings: Tensor, first: int) -> Tensor:
        """Final-norm output rows ``first`` ... of the prefix ([cls], registers), as (B, K, D).

        Args:
            vit: The module; parameters without ``requires_grad`` cost no work of their own where the family
                can leave it out.
            pixels: Preprocessed images (B, 3, S, S).
            embeddings: Input embeddings (K, D) in the place of the prefix rows ``first`` to ``first + K``;
                further ones stand beside them, where ``first`` is.
            first: 0 begins at [cls], 1 at the first register.
        """

    def called_in_parts(self, vit: Any) -> list[nn.Module]:
        """Return the blocks that `token_rows` does not call as a whole."""


TOWERS: Mapping[str, Tower] = {"vision_transformer": PlainTower(), "eva": EvaTower()}
"""By the module of timm that an architecture stands in."""


def tower_of(vit: Any) -> Tower:
    """Return the family of a module of timm.

    Raises:
        ValueError: There is none that computes what it does.
    """
    tower = TOWERS.get(type(vit).__module__.rpartition(".")[2])
    fault = tower.fault(vit) if tower else f"{type(vit).__name__} is of no family that is known"
    if tower is None or fault:
        raise ValueError(
            f"the encoder must be a vision transformer with [cls], plain or of timm's eva kind: {fault}"
        )
    return tower


def input_embeddings(vit: Any) -> Tensor:
    """The [cls] and register embeddings (1 + R, D), without positions."""
    parts = [vit.cls_token[0]] if vit.reg_token is None else [vit.cls_token[0], vit.reg_token[0]]
    return torch.cat(parts)
