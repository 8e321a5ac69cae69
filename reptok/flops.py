"""Multiply-accumulates of our own modules and the paper's efficiency table (its table 3) computed from them.

Convention: one multiply-accumulate (MAC) is one "FLOP", as in the DiT papers whose figures the table quotes;
forward pass; all matrix products and convolutions counted, the attention's products included unless said
otherwise. Modules live on the meta device: no weights, no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reptok.configs import DecoderConfig, GeneratorConfig
from reptok.decoder.sizes import SIZES
from reptok.decoder.transformer import Decoder
from reptok.encoder.vit import dinov2
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

GIGA = 1e9
GENERATOR_BATCH = 256  # the batch with which the paper's total PFLOPs follow from its GFLOPs per iteration
ATTENTION_OPS = ("bmm", "attention")
LATENT_TOKENS, LATENT_FEATURES = 256, 16  # 4 x 32 x 32 in patches of 2


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
