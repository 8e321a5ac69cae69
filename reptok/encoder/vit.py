"""Vision transformers as timm builds them, from a folder, a hub name or plain sizes.

A folder has the hub's own format: config.json (architecture, model_args, pretrained_cfg) beside
model.safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm import create_model
from timm.models.vision_transformer import VisionTransformer

from reptok.encoder.preprocess import IMAGENET_MEAN, IMAGENET_STD
from reptok.weights import read_json, save_weights, write_json


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a folder's config.json says: timm's architecture name, its arguments and the pixel statistics."""

    name: str
    model_args: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def build(self, *, pretrained: bool = False) -> VisionTransformer:
        """Build the network without a head; ``pretrained`` fetches the hub's weights for the name."""
        vit: Any = create_model(self.name, pretrained=pretrained, **{"num_classes": 0, **self.model_args})
        return vit


def dinov2(
    width: int, depth: int, heads: int, *, patch_size: int = 14, image_size: int = 224, registers: int = 4
) -> Architecture:
    """A DINOv2 vision transformer with registers of the given sizes; needs no hub."""
    return Architecture(
        name="vit_base_patch14_reg4_dinov2",
        model_args={
            "embed_dim": width,
            "depth": depth,
            "num_heads": heads,
            "patch_size": patch_size,
            "img_size": image_size,
            "reg_tokens": registers,
        },
    )


def read_architecture(folder: Path) -> Architecture:
    """Read the architecture of a hub-format folder.

    Raises:
        FileNotFoundError: config.json is missing.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no encoder folder: config.json is missing")
    config = read_json(folder / "config.json")
    pixels = config.get("pretrained_cfg", {})
    return Architecture(
        name=config["architecture"],
        model_args=dict(config.get("model_args", {})),
        mean=tuple(pixels.get("mean", IMAGENET_MEAN)),
        std=tuple(pixels.get("std", IMAGENET_STD)),
    )


def load_vit(folder: Path, image_size: int) -> tuple[VisionTransformer, Architecture]:
    """Load a hub-format folder in float32, its positions resampled to ``image_size`` where that differs.

    Raises:
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: The architecture is not a plain vision transformer with a [cls] token, or the weights do
            not fit.
    """
    architecture = read_architecture(folder)
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"{folder} is no encoder folder: model.safetensors is missing")
    vit = architecture.build()
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    state = {k: v for k, v in state.items() if not k.startswith("head.")}
    try:
        vit.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} do not fit its config.json: {error}") from error
    return resize_vit(vit, image_size), architecture


def resize_vit(vit: VisionTransformer, image_size: int) -> VisionTransformer:
    """Resample positions to ``image_size`` (bicubic, antialiased, float32); none at the native size."""
    if not isinstance(vit, VisionTransformer) or vit.cls_token is None:
        raise ValueError(f"the encoder must be a ViT with [cls], not {type(vit).__name__}")
    patch = vit.patch_embed.patch_size[0]
    if image_size % patch:
        raise ValueError(
            f"the encoder's image_size {image_size} must be a multiple of its patch size {patch}"
        )
    if vit.patch_embed.img_size != (image_size, image_size):
        vit.set_input_size(img_size=(image_size, image_size))
    return vit


def save_vit(vit: VisionTransformer, architecture: Architecture, folder: Path) -> None:
    """Write the folder that :func:`load_vit` reads; in float16 where that holds the weights exactly."""
    size = vit.patch_embed.img_size[0]
    model_args = {**architecture.model_args, "img_size": size, "num_classes": 0}
    pixels = {
        "input_size": [3, size, size],
        "mean": list(architecture.mean),
        "std": list(architecture.std),
        "fixed_input_size": True,
        "num_classes": 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "config.json",
        {
            "architecture": architecture.name,
            "num_classes": 0,
            "num_features": vit.num_features,
            "global_pool": vit.global_pool,
            "model_args": model_args,
            "pretrained_cfg": pixels,
        },
    )
    save_weights(vit.state_dict(), folder / "model.safetensors")
