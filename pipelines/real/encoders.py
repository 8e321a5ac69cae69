"""DINOv2, DINOv3 and MAE: our encoders' [cls] for the publishers' pixels.

transformers' classes state the values; ours are timm's networks of the same weights. What must be equal is
the class token after the final norm, for the same pixels at the same size: our encoders resize nothing that
has their size already, and their statistics are the publisher's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import ViTImageProcessor, ViTMAEForPreTraining

from pipelines.real.check import Check, Measured
from pipelines.real.material import Material, numbers
from pipelines.real.settings import Settings
from reptok.configs import EncoderConfig
from reptok.encoder.ssl import SSLEncoder, build_encoder
from reptok.folder import local_folder
from reptok.transformers_folder import LOCAL, load_network

MAE_SEED, SLICE = 2, 3


def checks(settings: Settings) -> list[Check]:
    """DINOv2 as the paper has it, DINOv3, and MAE beside the publisher's own."""
    size = settings.encoder_size
    return [
        Check(
            what="DINOv2 ViT-B/14 with registers, by timm",
            place=settings.dinov2,
            load=lambda material: encoder(settings.dinov2, material, size),
            rows={"dinov2": lambda loaded, material: class_token(loaded, material, Material.cropped, 3)},
        ),
        Check(
            what="DINOv3 ViT-S/16, by timm",
            place=settings.dinov3,
            load=lambda material: encoder(settings.dinov3, material, size),
            rows={"dinov3": lambda loaded, material: class_token(loaded, material, Material.squeezed, 5)},
        ),
        Check(
            what="MAE ViT-B/16, the publisher's own",
            place=settings.mae_reference,
            load=lambda material: whole_mae(settings.mae_reference, material),
            rows={"mae_reference": predicted},
        ),
        Check(
            what="MAE ViT-B/16, by timm",
            place=settings.mae,
            load=lambda material: (
                encoder(settings.mae, material, size),
                whole_mae(settings.mae_reference, material),
            ),
            rows={"mae": lambda loaded, material: unmasked(*loaded, material)},
        ),
    ]


def encoder(place: str, material: Material, size: int) -> SSLEncoder:
    """Load a name of the hub or a timm folder by our own loader, frozen, for squares of `size` pixels."""
    config = replace(encoder_config(place, size), trainable="nothing")
    return build_encoder(config).eval().to(material.device)


def encoder_config(place: str, size: int) -> EncoderConfig:
    """The configuration of an encoder by its name or its folder."""
    named = not Path(place).is_dir()
    return EncoderConfig(name=place if named else "folder", path=None if named else place, image_size=size)


@torch.no_grad()
def class_token(
    loaded: SSLEncoder, material: Material, prepare: Callable[[Material, np.ndarray, int], Tensor], count: int
) -> Measured:
    """The first numbers of our [cls] of the publishers' picture."""
    token = loaded.features(prepare(material, material.cats, loaded.image_size))[0]
    return Measured(ours=numbers(token[:count]), note=f"norm of all {len(token)}: {float(token.norm()):.4f}")


def whole_mae(place: str, material: Material) -> tuple[Any, Any]:
    """The publisher's preparation, and its MAE with its decoder."""
    folder = local_folder(place)
    processor = ViTImageProcessor.from_pretrained(folder, **LOCAL)
    architectures = (ViTMAEForPreTraining.__name__,)
    network: Any = load_network(
        ViTMAEForPreTraining, folder, torch.float32, architectures=architectures, left_over=()
    )
    return processor, network.to(material.device)


def pixels_of(processor: Any, material: Material) -> Tensor:
    """The publishers' picture, prepared and normalised as the publisher does it, (1, 3, S, S)."""
    pixels: Tensor = processor(images=material.cats, return_tensors="pt")["pixel_values"]
    return pixels.to(material.device)


@torch.no_grad()
def predicted(loaded: tuple[Any, Any], material: Material) -> Measured:
    """What the publisher's MAE predicts of its picture, three quarters of it masked."""
    processor, network = loaded
    pixels = pixels_of(processor, material)
    patches = (pixels.shape[-1] // network.config.patch_size) ** 2
    noise = np.random.RandomState(MAE_SEED).uniform(size=(1, patches))
    logits = network(pixel_values=pixels, noise=torch.from_numpy(noise).to(material.device)).logits
    return Measured(ours=numbers(logits[0, :SLICE, :SLICE]))


@torch.no_grad()
def unmasked(ours: SSLEncoder, whole: tuple[Any, Any], material: Material) -> Measured:
    """Our [cls] beside that of the publisher's encoder when it masks nothing, of the same pixels."""
    processor, network = whole
    pixels = pixels_of(processor, material)
    network.vit.embeddings.config.mask_ratio = 0.0
    theirs = network.vit(pixel_values=pixels).last_hidden_state[0, 0]
    mean, std = ours.preprocess.mean, ours.preprocess.std
    token = ours.features((pixels * std + mean) * 2 - 1)[0]
    return Measured(
        ours=numbers(token), theirs=numbers(theirs),
        note=f"norm of all {len(token)}: {float(token.norm()):.4f}",
    )  # fmt: skip
