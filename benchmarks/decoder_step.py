"""The decoder's part of a training step against a DiT of equal depth and width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.compare import Comparison, compare
from reptok.configs import DecoderConfig
from reptok.decoder.transformer import Decoder

BATCH, DEPTH, WIDTH, HEADS = 4, 4, 1152, 16


def run() -> Comparison:
    """Forward and backward with gradients of every weight, at XL's width and a 32 x 32 latent."""
    torch.manual_seed(0)
    decoder = _awake(Decoder(DecoderConfig(width=WIDTH, depth=DEPTH, heads=HEADS)))
    dit: Any = _awake(
        DiTTransformer2DModel(
            num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=4, out_channels=4,
            num_layers=DEPTH, sample_size=32, patch_size=2, dropout=0.0,
        )
    )  # fmt: skip
    x, target = torch.randn(2, BATCH, 4, 32, 32)
    t, token = torch.rand(BATCH), torch.randn(BATCH, 1, WIDTH)
    steps, labels = (t * 1000).long(), torch.zeros(BATCH, dtype=torch.long)

    def ours() -> None:
        decoder.zero_grad()
        (decoder(x, t, token) - target).square().mean().backward()

    def theirs() -> None:
        dit.zero_grad()
        (dit(x, timestep=steps, class_labels=labels).sample - target).square().mean().backward()

    return compare(
        f"decoder step, width {WIDTH}, depth {DEPTH}, batch {BATCH}",
        ours,
        "diffusers' DiTTransformer2DModel",
        theirs,
        f"{_gflop(ours):,.0f} and {_gflop(theirs):,.0f} GFLOP: the paper's feed-forward is wider",
    )


def _awake(network: nn.Module) -> nn.Module:
    """Replace weights that begin at zero: work that they would spare is not spared in training."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return network.train()


def _gflop(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9
