"""Both trainings as they are, on random data: the same objectives, step, optimiser and average.

Frozen networks have random weights, which cost as much as any; a language model and a VAE, whose work is
cached or done elsewhere, are left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from reptok import flops
from reptok.autoencoder import Autoencoder
from reptok.configs import GeneratorConfig, RepTokConfig
from reptok.data.batch import GeneratorBatch, TokenizerBatch
from reptok.encoder.ssl import SSLEncoder
from reptok.generator.generator import TokenGenerator
from reptok.tokenizer import RepTok
from reptok.training.capture import CapturedStep
from reptok.training.config import OptimConfig, Precision, Recompute, Strategy
from reptok.training.objectives import GeneratorObjective, TokenizerObjective
from reptok.training.parallel import parallelize
from reptok.training.state import TrainState
from reptok.training.step import StepRandom, TrainStep

OPTIM = OptimConfig(warmup_steps=1)
EMA_DECAY = 0.9999
VAE_DOWNSAMPLE = 8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a training runs.

    Attributes:
        device: Where.
        batch_size: Samples of a step.
        precision: "float32", or "bfloat16" matrix products.
        compile: Compile the networks' blocks.
        recompute: What of every trained block the backward pass computes again.
        accumulate: Parts of the batch, one forward and backward pass each.
        cuda_graphs: Replay the step as a CUDA graph.
        strategy: How several processes share the model.
        processes: How many there are; each has a batch of `batch_size`.
    """

    device: torch.device
    batch_size: int
    precision: Precision = "float32"
    compile: bool = False
    recompute: Recompute = "none"
    accumulate: int = 1
    cuda_graphs: bool = False
    strategy: Strategy = "ddp"
    processes: int = 1


@dataclass(frozen=True)
class Training:
    """A training step and a batch for it.

    Attributes:
        step: Trains on a batch, which lies in host memory (pinned, for a GPU), as the loader gives it.
        batch: Random data.
        batch_size: Samples in it.
        flops_per_image: Forward and backward, 2 x MAC.
        state: Weights, optimiser and average.
        objective: What is trained.
    """

    step: Callable[[Any], None]
    batch: Any
    batch_size: int
    flops_per_image: int
    state: TrainState | None = None
    objective: Any = None


def tokenizer_training(
    config: RepTokConfig, settings: Settings, *, images: bool = True, draws: int = 1
) -> Training:
    """The tokenizer's step from cached moments and frozen tokens.

    Args:
        config: Sizes; no weights are read.
        settings: Where and how.
        images: Train the `[cls]` embedding too; without them the decoder alone trains, on the frozen tokens.
        draws: Noises and times that an image is decoded from.
    """
    decoder, size = config.decoder, settings.batch_size
    tokenizer = build_tokenizer(config, settings.device)
    objective = TokenizerObjective(
        tokenizer, 0.1, "logit_normal", draws=draws, decoder_first_steps=0 if images else sys.maxsize
    )
    side = decoder.latent_size * VAE_DOWNSAMPLE
    batch = TokenizerBatch(
        images=torch.randint(256, (size, side, side, 3), dtype=torch.uint8) if images else None,
        moments=torch.randn(
            size, 2 * decoder.latent_channels, decoder.latent_size, decoder.latent_size
        ).half(),
        frozen_token=torch.randn(size, decoder.num_tokens, decoder.token_dim),
        samples=np.arange(size),
    )
    cost = flops.tokenizer_training(config, draws=draws) if images else flops.decoder_training(decoder)
    return _training(objective, batch, settings, cost)


def build_tokenizer(config: RepTokConfig, device: torch.device) -> RepTok:
    """A tokenizer with random weights, on a device; its autoencoder knows the latents' scale alone."""
    architecture = flops.encoder_architecture(config.encoder)
    with device:
        encoder = SSLEncoder(config.encoder, architecture.build(), architecture)
        autoencoder = Autoencoder(config.autoencoder, vae=_UnusedVAE(config.decoder.latent_channels))
        return RepTok(config, encoder=encoder, autoencoder=autoencoder)


def generator_training(config: GeneratorConfig, settings: Settings, *, text_length: int = 77) -> Training:
    """The generator's step from cached tokens; `text_length` states stand for a language model's."""
    size = settings.batch_size
    with settings.device:
        generator = TokenGenerator(config)
        states = torch.randn(size, text_length, config.text_dim)
        mask = torch.ones(size, text_length, dtype=torch.bool)
    conditioner = generator.reads(config, lambda captions: (states, mask))
    objective = GeneratorObjective(generator, conditioner, "uniform")
    batch = GeneratorBatch(
        tokens=torch.randn(size, config.num_tokens, config.token_dim),
        captions=[""] * size,
        labels=torch.randint(max(1, config.num_classes), (size,)),
        samples=np.arange(size),
    )
    cost = flops.generator_training(config, text_length=text_length)
    return _training(objective, batch, settings, cost)


def _training(objective: Any, batch: Any, settings: Settings, cost: int) -> Training:
    _wake(objective)
    processes, device = settings.processes, settings.device
    parallel = parallelize(
        objective, settings.strategy, world_size=processes, compile=settings.compile,
        recompute=settings.recompute, device=device, precision=settings.precision,
    )  # fmt: skip
    state = TrainState(objective.train(), OPTIM, EMA_DECAY)
    kind = CapturedStep if settings.cuda_graphs else TrainStep
    step = kind(
        parallel, state, OPTIM, total_steps=1 << 30, precision=settings.precision, device=device,
        accumulate=settings.accumulate,
    )  # fmt: skip
    size = settings.batch_size
    mine = slice(parallel.rank * size, (parallel.rank + 1) * size)

    def train(batch: Any) -> None:
        prepared = objective.prepared(batch, device) if device.type == "cuda" else batch
        step(prepared, StepRandom(0, state.step, processes * size, mine, device))
        state.step += 1

    given = batch.pinned() if device.type == "cuda" else batch
    return Training(train, given, size, cost, state, objective)


@torch.no_grad()
def _wake(model: nn.Module) -> None:
    """Replace weights that begin at zero: a GPU multiplies zeros with less power, and so faster."""
    for parameter in model.parameters():
        if parameter.requires_grad and not parameter.any():
            nn.init.normal_(parameter, std=0.02)


class _UnusedVAE(nn.Module):
    """Stands for the VAE, of which a training with cached moments needs the scale alone."""

    def __init__(self, channels: int):
        super().__init__()
        self.config = SimpleNamespace(
            scaling_factor=0.18215, shift_factor=None, latent_channels=channels, block_out_channels=(0,) * 4
        )
