"""The encoder's part of a tokenizer step at ViT-B/14 size: the pruned gradient against plain autograd."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import Comparison, compare
from reptok.configs import EncoderConfig
from reptok.encoder.preservation import preservation_loss
from reptok.encoder.ssl import build_encoder

BATCH = 4
TOLERANCE = 1e-5


def run() -> Comparison:
    """One gradient of the [cls] embedding, the frozen target from a cache or from a second forward."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="random_vitb14_reg", image_size=224))
    vit: Any = copy.deepcopy(encoder.original_vit).requires_grad_(False)
    embedding = vit.cls_token.requires_grad_()
    images, pull = torch.rand(BATCH, 3, 256, 256) * 2 - 1, torch.randn(BATCH, encoder.dim)
    frozen = encoder.frozen(images)

    def loss(token: Tensor, target: Tensor) -> Tensor:
        return (preservation_loss(token, target) + (token * pull).mean(-1)).mean()

    def ours() -> Tensor:
        encoder.embedding.grad = None
        loss(encoder(images)[:, 0], frozen[:, 0]).backward()
        return _gradient(encoder.embedding)

    def theirs() -> Tensor:
        embedding.grad = None
        pixels = encoder.preprocess(images)
        with torch.no_grad():
            target = vit.forward_features(pixels)[:, 0]
        loss(vit.forward_features(pixels)[:, 0], target).backward()
        return _gradient(embedding)

    plain = theirs().flatten()
    error = float((ours().flatten() - plain).norm() / plain.norm())
    if error > TOLERANCE:
        raise RuntimeError(f"the pruned gradient is off by {error:.1e}")
    return compare(
        f"[cls] gradient of ViT-B/14 with registers, batch {BATCH}",
        ours,
        "timm, plain autograd and a frozen forward",
        theirs,
        f"gradients, relative error {error:.0e}",
    )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
