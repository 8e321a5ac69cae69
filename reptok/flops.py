"""Multiply-accumulates of our own modules and the paper's efficiency table (its table 3) computed from them.

Convention: one multiply-accumulate (MAC) is one "FLOP", as in the DiT papers whose figures the table quotes;
forward pass; all matrix products and convolutions counted, the attention's products included unless said
otherwise. What a training needs is in real FLOPs (2 x MAC), forward and backward, for comparison with a
device's speed. Modules live on the meta device: no weights, no arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reptok.configs import DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
from reptok.decoder.sizes import SIZES
from reptok.decoder.transformer import Decoder
from reptok.encoder.ssl import HUB, SSLEncoder
from reptok.encoder.vit import Architecture, dinov2, read_architecture
from reptok.generator.conditioner import CONDITIONERS
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

GIGA = 1e9
GENERATOR_BATCH = 256  # the batch with which the paper's total PFLOPs follow from its GFLOPs per iteration
ATTENTION_OPS = ("bmm", "attention")
LATENT_TOKENS, LATENT_FEATURES = 256, 16  # 4 x 32 x 32 in patches of 2
VITS = {
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "debug": (32, 2, 2),
}  # width, depth, heads


@dataclass(frozen=True)
class Cost:
    """Parameters and forward MACs per image, of which ``attention_macs`` in attention's products."""

    parameters: int
    macs: int
    attention_macs: int

    @property
    def linear_macs(self) -> int:
        """What a counter sees that misses the attention's products."""
        return self.macs - self.attention_macs


@dataclass(frozen=True)
class EfficiencyRow:
    """One line of the paper's table: what it prints and what our modules give."""

    name: str
    iterations: int
    printed_gflops: float
    printed_pflops: float
    gflops: float
    parameters: int
    note: str = ""

    @property
    def pflops(self) -> float:
        """Total PFLOPs: GFLOPs per image times batch times iterations."""
        return self.gflops * GIGA * GENERATOR_BATCH * self.iterations / 1e15


def measure(build: Callable[[], nn.Module], call: Callable[[nn.Module], object]) -> Cost:
    """Count one call of a module that is built without memory."""
    with torch.device("meta"), torch.no_grad():
        module = build().eval().to("meta")  # buffers too, where a library has replaced what fills them
        with FlopCounterMode(display=False) as counter:
            call(module)
    flops = {str(op): n for op, n in counter.get_flop_counts().get("Global", {}).items()}
    attention = sum(n for op, n in flops.items() if any(part in op for part in ATTENTION_OPS))
    parameters = sum(p.numel() for p in module.parameters())
    return Cost(parameters=parameters, macs=sum(flops.values()) // 2, attention_macs=attention // 2)


@cache
def decoder_cost(config: DecoderConfig = SIZES["XL"]) -> Cost:
    """One evaluation of the decoder for one image."""

    def call(decoder: nn.Module) -> object:
        x = torch.empty(1, config.latent_channels, config.latent_size, config.latent_size)
        return decoder(x, torch.empty(1), torch.empty(1, config.num_tokens, config.width))

    return measure(lambda: Decoder(config), call)


@cache
def encoder_cost(width: int = 768, depth: int = 12, heads: int = 12, *, registers: int = 4) -> Cost:
    """One plain forward pass of a DINOv2 vision transformer at 224 px, no row left out."""
    architecture = dinov2(width, depth, heads, registers=registers)
    return measure(architecture.build, lambda vit: vit(torch.empty(1, 3, 224, 224)))


@cache
def generator_cost(config: GeneratorConfig) -> Cost:
    """One evaluation of a class-conditional generator for one image."""

    def call(generator: nn.Module) -> object:
        x = torch.empty(1, config.num_tokens, config.token_dim)
        labels = torch.empty(1, dtype=torch.long)
        return cast(TokenGenerator, generator).velocity(x, torch.empty(1), Condition(labels=labels))

    return measure(lambda: TokenGenerator(config), call)


def tokenizer_training(config: RepTokConfig, *, draws: int = 1) -> int:
    """FLOPs per image of a tokenizer's step with cached latents and targets: forward and backward.

    Args:
        config: The tokenizer.
        draws: Noises and times that an encoded image is decoded from; 0 counts the encoder alone.
    """
    return encoder_training(config.encoder) + draws * decoder_training(config.decoder)


@cache
def decoder_training(config: DecoderConfig) -> int:
    """FLOPs of the decoder's forward and backward pass for one image; its token receives a gradient."""

    def call(decoder: nn.Module) -> Tensor:
        x = torch.empty(1, config.latent_channels, config.latent_size, config.latent_size)
        token = torch.empty(1, config.num_tokens, config.width, requires_grad=True)
        return decoder(x, torch.empty(1), token)

    return _trained(lambda: Decoder(config), call)


@cache
def encoder_training(config: EncoderConfig) -> int:
    """FLOPs of the encoder's forward pass for one image, and of the gradient of what trains in it."""
    architecture = encoder_architecture(config)

    def build() -> nn.Module:
        return SSLEncoder(config, architecture.build(), architecture)

    return _trained(build, lambda encoder: encoder(torch.empty(1, 3, config.image_size, config.image_size)))


@cache
def generator_training(config: GeneratorConfig, *, text_length: int = 77) -> int:
    """FLOPs of a generator's forward and backward pass for one image with a cached token.

    The frozen language model of a text-conditional generator does not count; `text_length` is the number of
    its states.
    """

    def call(generator: nn.Module) -> Tensor:
        x = torch.empty(1, config.num_tokens, config.token_dim)
        given = CONDITIONERS[config.condition](config).example(1, text_length)
        return cast(TokenGenerator, generator).velocity(x, torch.empty(1), given)

    return _trained(lambda: TokenGenerator(config), call)


def encoder_architecture(config: EncoderConfig) -> Architecture:
    """The transformer that an encoder's configuration names, without its weights.

    Raises:
        ValueError: The name does not say a size, and there is no folder that does.
    """
    if config.path is not None:
        found = read_architecture(Path(config.path))
        return replace(found, model_args={**found.model_args, "img_size": config.image_size})
    if config.name.startswith("dinov3"):
        return Architecture(name=HUB[config.name].split(".")[0], model_args={"img_size": config.image_size})
    match = re.search(r"_vit(s|b|l|debug)(\d+)", config.name)
    if match is None:
        raise ValueError(f"the size of encoder {config.name!r} is not known; set encoder.path")
    registers = 4 if config.name.endswith("_reg") else 0
    return dinov2(
        *VITS[match[1]], patch_size=int(match[2]), image_size=config.image_size, registers=registers
    )


def _trained(build: Callable[[], nn.Module], call: Callable[[nn.Module], Tensor]) -> int:
    """Count the FLOPs of one call and of its gradients."""
    with torch.device("meta"):
        module = build().to("meta")
        with FlopCounterMode(display=False) as counter:
            output = call(module)
            if output.requires_grad:
                output.sum().backward()
    return counter.get_total_flops()


def mixer_config(channel_expansion: int = 4) -> GeneratorConfig:
    """The paper's mixer: expansion 4 is what its appendix says (371 M), 3 what its "276 M" needs."""
    return GeneratorConfig(condition="class", num_classes=1000, channels_mlp_dim=channel_expansion * 1280)


def sit_config(dim: int, depth: int) -> GeneratorConfig:
    """SiT over the VAE latent, patch 2."""
    return GeneratorConfig(
        kind="transformer",
        condition="class",
        num_classes=1000,
        num_tokens=LATENT_TOKENS,
        token_dim=LATENT_FEATURES,
        dim=dim,
        depth=depth,
        heads=16,
    )


def efficiency_table() -> list[EfficiencyRow]:
    """The paper's table, each line with the figure our modules give by the paper's convention."""
    repa = encoder_cost(registers=0).linear_macs / GIGA
    large, extra_large = generator_cost(sit_config(1024, 24)), generator_cost(sit_config(1152, 28))
    mixer = generator_cost(mixer_config())
    rows = []
    for name, cost, iterations, printed in (
        ("DiT-XL/2", extra_large, 400_000, ((118.6, 12.1), (140.5, 14.4))),
        ("SiT-L/2", large, 400_000, ((77.5, 7.9), (99.4, 10.2))),
        ("SiT-XL/2", extra_large, 400_000, ((118.6, 12.1), (140.5, 14.4))),
    ):
        base = cost.macs / GIGA
        (gflops, pflops), (gflops_repa, pflops_repa) = printed
        note = "the printed figure leaves out the attention's products" if name == "SiT-L/2" else ""
        rows.append(EfficiencyRow(name, iterations, gflops, pflops * 1e3, base, cost.parameters, note))
        note = "+ ViT-B/14 without registers, its attention products not counted"
        rows.append(
            EfficiencyRow(
                f"{name} + REPA",
                iterations,
                gflops_repa,
                pflops_repa * 1e3,
                base + repa,
                cost.parameters,
                note,
            )
        )
    for iterations, printed_pflops in ((100_000, 0.6e3), (700_000, 4.1e3)):
        gflops = repa + mixer.macs / GIGA
        note = "encoder as in REPA + mixer of appendix A; with cached tokens the encoder's share is zero"
        name = f"RepTok {iterations // 1000}K"
        rows.append(EfficiencyRow(name, iterations, 23.0, printed_pflops, gflops, mixer.parameters, note))
    return rows
