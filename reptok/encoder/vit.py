"""Vision transformers as timm builds them, from a folder, a hub name or plain sizes.

A folder has the hub's own format: config.json (architecture, model_args, pretrained_cfg) beside
model.safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm import create_model
from timm.models import is_model, is_model_in_modules
from torch import nn

from reptok.encoder.preprocess import IMAGENET_MEAN, IMAGENET_STD
from reptok.encoder.tower import TOWERS, tower_of
from reptok.folder import check_folder, loading, weight_shapes
from reptok.weights import check_keys, load_exact, load_weights, read_json, save_weights, write_json

MODEL_ARGS: dict[str, tuple[Any, ...]] = {
    "img_size": (1, 4096), "patch_size": (1, 256), "in_chans": (3, 3), "num_classes": (0, 0),
    "embed_dim": (1, 2**14), "depth": (1, 256), "num_heads": (1, 256), "mlp_ratio": (0.01, 64),
    "init_values": (0, 100), "qkv_bias": (0, 1), "qk_norm": (0, 1),
    "proj_bias": (0, 1), "class_token": (1, 1), "no_embed_class": (0, 1), "pre_norm": (0, 1),
    "final_norm": (0, 1), "dynamic_img_size": (0, 1), "dynamic_img_pad": (0, 1), "drop_rate": (0, 1),
    "global_pool": ("", "token", "avg"),
    "act_layer": ("gelu", "gelu_tanh", "quick_gelu", "silu", "relu"),
}  # fmt: skip
"""The arguments that a folder may give its architecture, with their bounds or values; timm takes others, a
file of weights among them."""

HEAD = "head."
"""Keys of a classifier, which is not used."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a folder's config.json says: timm's architecture name, its arguments and the pixel statistics."""

    name: str
    model_args: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def build(self, *, pretrained: bool = False) -> nn.Module:
        """Build the network without a head; ``pretrained`` fetches the hub's weights for the name."""
        vit: nn.Module = create_model(
            self.name, pretrained=pretrained, **{"num_classes": 0, **self.model_args}
        )
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
        ValueError: It is no vision transformer's of a known family, or has arguments that are not understood.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} is no encoder folder: config.json is missing")
    config = read_json(folder / "config.json")
    pixels, arguments = config.get("pretrained_cfg", {}), config.get("model_args", {})
    if not isinstance(pixels, dict) or not isinstance(arguments, dict):
        raise ValueError(f"{folder}/config.json: pretrained_cfg and model_args must be JSON objects")
    name = config.get("architecture")
    known = isinstance(name, str) and name.replace("_", "").replace(".", "").isalnum() and is_model(name)
    family = next((f for f in TOWERS if known and is_model_in_modules(str(name), [f])), None)
    if family is None:
        raise ValueError(f"{folder}/config.json: {name!r} is no vision transformer of timm")
    allowed = {**MODEL_ARGS, **TOWERS[family].arguments}
    for key, value in arguments.items():
        _check_argument(key, value, allowed, folder)
    return Architecture(
        name=str(name),
        model_args=dict(arguments),
        mean=_statistics(pixels.get("mean", IMAGENET_MEAN), folder),
        std=_statistics(pixels.get("std", IMAGENET_STD), folder, above=0.0),
    )


def _check_argument(key: str, value: Any, known: Mapping[str, tuple[Any, ...]], folder: Path) -> None:
    allowed = known.get(key)
    if allowed is None:
        raise ValueError(
            f"{folder}/config.json: the argument {key!r} is not understood; known are {', '.join(known)}"
        )
    values = value if isinstance(value, list) and len(value) == 2 and key.endswith("_size") else [value]
    for entry in values:
        if isinstance(allowed[0], str):
            fits = isinstance(entry, str) and entry in allowed
        else:
            low, high = allowed
            fits = isinstance(entry, int | float) and low <= entry <= high
        if not (fits or entry is None):
            raise ValueError(
                f"{folder}/config.json: {key} cannot be {str(value)[:80]!r}; allowed is {allowed}"
            )


def _statistics(values: Any, folder: Path, above: float = -math.inf) -> tuple[float, ...]:
    """Three numbers, one of each colour."""
    numbers = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    if not numbers or len(values) != 3 or not all(math.isfinite(v) and v > above for v in values):
        raise ValueError(
            f"{folder}/config.json: mean and std must be three numbers, std above 0, got {values!r}"
        )
    return tuple(values)


def load_vit(folder: Path, image_size: int) -> tuple[nn.Module, Architecture]:
    """Load a hub-format folder in float32, its positions resampled to ``image_size`` where that differs.

    Raises:
        FileNotFoundError: config.json or model.safetensors is missing.
        ValueError: The architecture is of no known family with a [cls] token, or the weights do not fit.
    """
    if folder.is_dir():
        check_folder(folder)
    architecture = read_architecture(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{folder} is no encoder folder: model.safetensors is missing")
    shapes = {key: shape for key, shape in weight_shapes([weights]).items() if not key.startswith(HEAD)}
    with loading(folder), torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in architecture.build().state_dict().items()}
    check_keys(expected, shapes, source=f"{weights}, read by config.json beside it,")
    with loading(folder):
        vit = architecture.build()
        tower_of(vit)
    state = {key: value for key, value in load_weights(weights).items() if not key.startswith(HEAD)}
    load_exact(vit, state, source=str(weights))
    return resize_vit(vit, image_size), architecture


def resize_vit(vit: Any, image_size: int) -> Any:
    """Resample positions to ``image_size`` (bicubic, antialiased, float32); none at the native size."""
    tower_of(vit)
    patch = vit.patch_embed.patch_size[0]
    if image_size % patch:
        raise ValueError(
            f"the encoder's image_size {image_size} must be a multiple of its patch size {patch}"
        )
    if vit.patch_embed.img_size != (image_size, image_size):
        vit.set_input_size(img_size=(image_size, image_size))
    return vit


def save_vit(vit: Any, architecture: Architecture, folder: Path) -> None:
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
