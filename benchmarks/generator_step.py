"""The generator's step from cached tokens against the same step that encodes its images."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.compare import Comparison, compare
from reptok.configs import EncoderConfig, GeneratorConfig
from reptok.encoder.ssl import build_encoder
from reptok.flops import mixer_config
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

BATCH, PAIRS = 32, 5
TOLERANCE = 1e-5
ENCODER = EncoderConfig(name="random_vitb14_reg")


def run(
    config: GeneratorConfig | None = None, encoder_config: EncoderConfig = ENCODER, batch: int = BATCH
) -> Comparison:
    """Forward and backward of the mixer of the paper's table 3, and ViT-B/14 with registers."""
    torch.manual_seed(0)
    generator = TokenGenerator(config or mixer_config(3)).train()
    encoder = build_encoder(encoder_config)
    images = torch.rand(batch, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        cached = encoder(images)
    noise, t = torch.randn_like(cached), torch.rand(batch)
    condition = Condition(labels=torch.arange(batch) % generator.config.num_classes)
    drop = torch.arange(batch) % 10 == 0

    def step(tokens: Tensor) -> Tensor:
        for parameter in generator.parameters():
            parameter.grad = None
        generator.losses(tokens, condition, noise=noise, t=t, drop=drop).mean().backward()
        gradient = next(generator.network.parameters()).grad
        assert gradient is not None
        return gradient

    def ours() -> Tensor:
        return step(cached)

    def theirs() -> Tensor:
        with torch.no_grad():
            tokens = encoder(images)
        return step(tokens)

    first, second = ours(), theirs()
    error = float((first - second).norm() / second.norm())
    if error > TOLERANCE:
        raise RuntimeError(f"the gradients from the cache are off by {error:.1e}")
    return compare(
        f"generator step, cached tokens, batch {batch}",
        ours,
        "the same step encoding its images",
        theirs,
        f"gradients of the first layer, relative error {error:.0e}",
        PAIRS,
    )
