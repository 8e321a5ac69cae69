"""How wide networks are, from their names or from the config.json of their folders; no weights are read.

Free of torch, so that what follows from a network can be planned without it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

CONFIG = "config.json"


@dataclass(frozen=True)
class EncoderDimensions:
    """Of a vision transformer.

    Attributes:
        width: D, of its tokens.
        patch_size: Side of a patch in pixels.
        rows: Tokens beside the patches: [cls] and the registers.
        plain: Whether it is an ordinary vision transformer, which takes further rows.
    """

    width: int
    patch_size: int
    rows: int
    plain: bool = True


@dataclass(frozen=True)
class LatentDimensions:
    """Of a VAE's latent: its channels, and pixels of the image per side of a pixel of the latent."""

    channels: int
    downsample: int


@dataclass(frozen=True)
class TextDimensions:
    """Of a language model: the width of its states, and its longest text in tokens (None for any)."""

    width: int
    max_length: int | None = None


ENCODERS = {
    "dinov2_vits14_reg": EncoderDimensions(384, 14, 5),
    "dinov2_vitb14_reg": EncoderDimensions(768, 14, 5),
    "dinov2_vitl14_reg": EncoderDimensions(1024, 14, 5),
    "dinov3_vits16": EncoderDimensions(384, 16, 5, plain=False),
    "dinov3_vitb16": EncoderDimensions(768, 16, 5, plain=False),
    "dinov3_vitl16": EncoderDimensions(1024, 16, 5, plain=False),
    "mae_vitb16": EncoderDimensions(768, 16, 1),
    "clip_vitb16": EncoderDimensions(768, 16, 1),
    "random_vits14_reg": EncoderDimensions(384, 14, 5),
    "random_vitb14_reg": EncoderDimensions(768, 14, 5),
    "random_vitl14_reg": EncoderDimensions(1024, 14, 5),
    "random_vittiny16_reg": EncoderDimensions(192, 16, 5),
    "random_vitdebug8_reg": EncoderDimensions(32, 8, 5),
}
"""By name; a test holds them against the networks themselves."""

VAES = {
    "stabilityai/sd-vae-ft-mse": LatentDimensions(4, 8),
    "stabilityai/sd-vae-ft-ema": LatentDimensions(4, 8),
}
TEXT_ENCODERS = {
    "openai/clip-vit-large-patch14": TextDimensions(768, 77),
    "google/gemma-2b": TextDimensions(2048, 8192),
    "OpenGVLab/InternVL3-1B-hf": TextDimensions(896, 32768),
    "ViT-L-14/openai": TextDimensions(768, 77),
}
"""Of models of the hub and of open_clip, by id."""


def encoder_dimensions(folder: Path) -> EncoderDimensions:
    """Of a timm folder.

    Raises:
        FileNotFoundError: It has no config.json.
        ValueError: The file does not say.
    """
    values = _config(folder)
    sizes = values.get("model_args", {})
    width = values.get("num_features", sizes.get("embed_dim"))
    patch, registers = sizes.get("patch_size"), sizes.get("reg_tokens", sizes.get("num_reg_tokens", 0))
    if not (_counts(width) and _counts(patch) and isinstance(registers, int)):
        raise ValueError(f"{folder / CONFIG} does not say num_features and model_args.patch_size")
    plain = "num_reg_tokens" not in sizes and not re.search("eva|dinov3", str(values.get("architecture")))
    return EncoderDimensions(width, patch, 1 + registers, plain)


def latent_dimensions(folder: Path) -> LatentDimensions:
    """Of a diffusers AutoencoderKL folder; raises as `encoder_dimensions`."""
    values = _config(folder)
    channels, blocks = values.get("latent_channels"), values.get("block_out_channels")
    if not _counts(channels) or not isinstance(blocks, list) or not blocks:
        raise ValueError(f"{folder / CONFIG} does not say latent_channels and block_out_channels")
    return LatentDimensions(channels, 2 ** (len(blocks) - 1))


def text_dimensions(folder: Path) -> TextDimensions:
    """Of a transformers folder: a text model, or the text part of a larger one; raises as above."""
    values = _config(folder)
    values = values.get("text_config", values)
    width, longest = values.get("hidden_size"), values.get("max_position_embeddings")
    if not _counts(width):
        raise ValueError(f"{folder / CONFIG} does not say hidden_size")
    return TextDimensions(width, longest if _counts(longest) else None)


def tokenizer_image_size(folder: Path) -> int:
    """Side in pixels of the images that a published tokenizer makes; raises as above."""
    try:
        parts = _config(folder)["config"]
        latent = latent_dimensions(folder / parts["autoencoder"]["path"])
        return int(parts["decoder"]["latent_size"]) * latent.downsample
    except (KeyError, TypeError) as error:
        raise ValueError(f"{folder / CONFIG} is not a tokenizer's: {error} is missing") from error


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{folder} holds no network: {CONFIG} is missing")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a JSON object")
    return values


def _counts(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
