"""The tokenizer's step at the paper's sizes: what is frozen from a cache against all of it from pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.compare import Comparison, compare
from reptok.autoencoder import SD_VAE, Autoencoder, build_vae
from reptok.configs import AutoencoderConfig, EncoderConfig, RepTokConfig
from reptok.decoder.sizes import SIZES
from reptok.tokenizer import RepTok

BATCH, PAIRS = 1, 5
TOLERANCE = 1e-5
CONFIG = RepTokConfig(
    encoder=EncoderConfig(name="random_vitb14_reg"),
    decoder=SIZES["XL"],
    autoencoder=AutoencoderConfig(scale=0.18215, sample=False),
)


def run(config: RepTokConfig = CONFIG, vae: Mapping[str, Any] = SD_VAE) -> Comparison:
    """Forward and backward of ViT-B/14, SD-VAE and the XL/2 decoder, with random weights."""
    torch.manual_seed(0)
    tokenizer = RepTok(config, autoencoder=Autoencoder(config.autoencoder, vae=build_vae(dict(vae)))).train()
    trained = tokenizer.trainable_parameters()
    for parameter in trained:
        if not parameter.any():  # zeros would hide most of the gradients that are compared
            torch.nn.init.normal_(parameter, std=0.02)
    images = torch.rand(BATCH, 3, tokenizer.image_size, tokenizer.image_size) * 2 - 1
    moments, target = tokenizer.autoencoder.encode_moments(images), tokenizer.encoder.frozen(images)
    noise, t = torch.randn(BATCH, *tokenizer.decoder.latent_shape), torch.full((BATCH,), 0.3)

    def step(latents: Tensor | None, frozen_token: Tensor | None) -> None:
        for parameter in trained:
            parameter.grad = None
        found = tokenizer.losses(images, latents=latents, noise=noise, t=t, frozen_token=frozen_token)
        (found.velocity + 0.1 * found.preservation).mean().backward()

    def ours() -> None:
        step(tokenizer.autoencoder.latents_from_moments(moments), target)

    def theirs() -> None:
        step(None, None)

    gradients = []
    for work in (ours, theirs):
        work()
        gradients.append(_flat([tokenizer.encoder.embedding, tokenizer.decoder.patch_out.weight]))
    error = float((gradients[0] - gradients[1]).norm() / gradients[1].norm())
    if error > TOLERANCE:
        raise RuntimeError(f"the gradients from the cache are off by {error:.1e}")
    return compare(
        f"tokenizer step, cached latents and targets, batch {BATCH}",
        ours,
        "the same step from pixels",
        theirs,
        f"gradients of [cls] and of the last layer, relative error {error:.0e}",
        PAIRS,
    )


def _flat(parameters: list[Tensor]) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
