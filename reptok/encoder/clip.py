"""CLIP's vision tower through open_clip, as a plain vision transformer.

The tower becomes timm's architecture of the same mathematics, so that the adapted [cls] embedding, the
pruned gradient and the folder format work for it as for every other encoder. The token is the final-norm
[cls] before CLIP's projection.
"""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from reptok.encoder.vit import Architecture
from reptok.weights import load_exact

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def load_clip(model: str, pretrained: str | None) -> tuple[VisionTransformer, Architecture]:
    """The vision tower of an open_clip model, as in ("ViT-B-16-quickgelu", "openai"); None: untrained."""
    from reptok.open_clip_models import create

    return convert_tower(create(model, pretrained).visual)


def convert_tower(visual: Any) -> tuple[VisionTransformer, Architecture]:
    """Rebuild an open_clip vision transformer in timm.

    Raises:
        ValueError: The tower is not a plain vision transformer with a [cls] token.
    """
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        raise ValueError(
            f"open_clip's {type(visual).__name__} is no plain vision transformer; choose a ViT model"
        )
    quick = type(blocks[0].mlp.gelu).__name__ == "QuickGELU"
    width = visual.conv1.out_channels
    architecture = Architecture(
        name="vit_base_patch16_clip_quickgelu_224" if quick else "vit_base_patch16_clip_224",
        model_args={
            "embed_dim": width,
            "depth": len(blocks),
            "num_heads": blocks[0].attn.num_heads,
            "mlp_ratio": blocks[0].mlp.c_fc.out_features / width,
            "patch_size": visual.conv1.kernel_size[0],
            "img_size": visual.image_size[0],
        },
        mean=CLIP_MEAN,
        std=CLIP_STD,
    )
    vit = architecture.build()
    state = checkpoint_filter_fn({f"visual.{k}": v for k, v in visual.state_dict().items()}, vit)
    state = {k: v.float() for k, v in state.items() if not k.startswith("head.")}
    load_exact(vit, state, source="the open_clip vision tower")
    return vit, architecture
