"""What a recipe's trainings keep in a GPU's memory at most, counted without one.

    python -m benchmarks.memory experiment=finetune_24gb init=- data.folder=- [key=value ...]

Networks are built on torch's device "meta", which has shapes and no values, and one part of a batch runs
forward. The bound is an upper one: every number counts four bytes although most products keep two, and
attention keeps its whole matrix, which fused kernels do not. One GB is 10^9 bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipelines.configuration.compose import load_config
from pipelines.configuration.schema import Config
from reptok.bench.trainings import build_tokenizer
from reptok.configs import RepTokConfig
from reptok.generator.generator import TokenGenerator
from reptok.training.config import TrainConfig

BYTES = 4
STATE = 5
"""A trained number has a weight, a gradient, two moments and an average."""
META = torch.device("meta")


@dataclass(frozen=True)
class Memory:
    """Bytes of one process.

    Attributes:
        state: Weights, gradients, moments and averages of what is trained.
        frozen: Weights of what is not.
        activations: What one part of the batch keeps for the backward pass.
        part: Samples of that part.
    """

    state: int
    frozen: int
    activations: int
    part: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.frozen + self.activations

    def __str__(self) -> str:
        return (
            f"{self.total / 1e9:.1f} GB at most: {self.state / 1e9:.1f} of what is trained, "
            f"{self.frozen / 1e9:.1f} of what is frozen, {self.activations / 1e9:.1f} of activations for "
            f"{self.part} samples at a time"
        )


def tokenizer_memory(config: Config) -> Memory:
    """Of the tokenizer's training; the VAE and the frozen tokens are cached."""
    sizes = RepTokConfig(encoder=config.encoder, decoder=config.decoder, autoencoder=config.vae)
    decoder, part = config.decoder, share(config.train.tokenizer)
    tokenizer = build_tokenizer(sizes, META)
    with META:
        size, drawn = config.data.image_size, config.train.draws * part
        latents = torch.empty(drawn, decoder.latent_channels, decoder.latent_size, decoder.latent_size)
        images = torch.empty(part, 3, size, size)
        target = torch.empty(part, decoder.num_tokens, decoder.token_dim)

        def forward() -> object:
            return tokenizer.losses_by_draw(
                images, latents=latents, noise=latents, t=torch.empty(drawn), frozen_token=target
            )

        return _measured(tokenizer, forward, part)


def generator_memory(config: Config) -> Memory:
    """Of the generator's training on cached tokens and encoded captions."""
    sizes, part = config.generator, share(config.train.generator)
    with META:
        generator = TokenGenerator(sizes)
        tokens = torch.empty(part, sizes.num_tokens, sizes.token_dim)
        length = config.text_encoder.max_length if config.text_encoder else 0
        condition = generator.reads(sizes).example(part, length)
        return _measured(generator, lambda: generator.velocity(tokens, torch.empty(part), condition), part)


def share(train: TrainConfig) -> int:
    """Samples that one process takes through the network at once."""
    return -(-train.batch_size // (max(1, train.workers) * train.accumulate))


def _measured(model: nn.Module, forward: Callable[[], object], part: int) -> Memory:
    weights = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, Tensor] = {}  # by storage, and held so that no address is used again

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if address not in weights:
            kept.setdefault(address, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    activations = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    return Memory(STATE * BYTES * trained, BYTES * frozen, activations, part)


def main(arguments: Sequence[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    try:
        config = load_config(Config, list(arguments))
        if config.tokenizer == "reptok":
            print(f"tokenizer: {tokenizer_memory(config)}")
        print(f"generator: {generator_memory(config)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
