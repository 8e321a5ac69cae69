"""What an H100 could reach at most, part by part: counted FLOP and bytes against its products and its memory.

Bytes are what matrix products, convolutions and attention read and write, in bfloat16, everything between
them being fused into them; and of a training 48 bytes a parameter for norm, AdamW and average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from reptok import flops
from reptok.bench.networks import TextTower, vae_decoder, vae_encoder
from reptok.bench.sizes import PAPER
from reptok.decoder.transformer import Decoder
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator

PRODUCTS, MEMORY = 798e12, 3.35e12
"""An H100's FLOP/s in a large bfloat16 product, measured, and its bytes a second, published."""
UPDATE_BYTES = 48
BATCH = 64
BYTES = 2  # bfloat16


@dataclass(frozen=True)
class Part:
    """A part of the work.

    Attributes:
        name: What it is.
        batch: Samples of a step.
        flop: Of a sample.
        moved: Bytes of a sample, to and from memory.
        update: Bytes of a step, whatever its batch.
    """

    name: str
    batch: int
    flop: float
    moved: float
    update: float = 0.0

    @property
    def products(self) -> float:
        """Seconds of a step that the arithmetic takes."""
        return self.batch * self.flop / PRODUCTS

    @property
    def memory(self) -> float:
        """Seconds of a step that the memory takes."""
        return (self.batch * self.moved + self.update) / MEMORY

    @property
    def per_second(self) -> float:
        """Samples a second at most: products overlap their own traffic, the update overlaps nothing."""
        return self.batch / (max(self.products, self.batch * self.moved / MEMORY) + self.update / MEMORY)

    @property
    def mfu(self) -> float:
        """The share of the products' speed that this is."""
        return self.per_second * self.flop / PRODUCTS


class Counted(TorchDispatchMode):
    """Counts the bytes that matrix products, convolutions and attention read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        result = function(*arguments, **(keywords or {}))
        if function.overloadpacket in flop_registry:
            tensors = [t for t in tree_leaves((arguments, keywords, result)) if isinstance(t, Tensor)]
            self.bytes += BYTES * sum(tensor.numel() for tensor in tensors)
        return result


def parts() -> Iterator[Part]:
    """Every part at the paper's sizes."""
    config, mixer = PAPER.tokenizer.decoder, PAPER.mixer
    latent = (config.latent_channels, config.latent_size, config.latent_size)

    def decoder(batch: int, network: nn.Module) -> Tensor:
        token = torch.empty(batch, config.num_tokens, config.width, requires_grad=True)
        return network(torch.empty(batch, *latent), torch.empty(batch), token)

    moved, weights = trained(lambda: Decoder(config), decoder)
    yield Part("decoder XL/2 training, cached latents", BATCH, flops.decoder_training(config), moved, weights)
    whole = flops.tokenizer_training(PAPER.tokenizer)
    yield Part("whole tokenizer step", BATCH, whole, moved + _vit_bytes(), weights)

    def generator(batch: int, network: nn.Module) -> Tensor:
        x = torch.empty(batch, mixer.num_tokens, mixer.token_dim)
        condition = Condition(labels=torch.zeros(batch, dtype=torch.long))
        velocity: Any = network.velocity
        return velocity(x, torch.empty(batch), condition)  # type: ignore[no-any-return]

    for batch in (BATCH, *PAPER.mixer_batches):
        moved, weights = trained(lambda: TokenGenerator(mixer), generator, batch)
        yield Part("mixer training, cached tokens", batch, flops.generator_training(mixer), moved, weights)
    image, small = torch.empty(1, 3, 256, 256, device="meta"), torch.empty(1, 4, 32, 32, device="meta")
    cost, moved = called(vae_encoder, lambda net: net(image))
    vit, vit_moved = flops.encoder_cost().macs * 2, _vit_bytes() / 2
    yield Part("VAE and [cls] of image and mirror", BATCH, 2 * (cost + vit), 2 * (moved + vit_moved))
    yield Part("[cls] alone", BATCH, vit, vit_moved)
    one, one_moved = called(lambda: Decoder(config), lambda net: decoder(1, net))
    cost, moved = called(vae_decoder, lambda net: net(small))
    steps = PAPER.steps
    yield Part(f"decode, {steps} steps and VAE", BATCH, steps * one + cost, steps * one_moved + moved)
    ids = torch.zeros(1, PAPER.text_length, dtype=torch.long, device="meta")
    cost, moved = called(TextTower, lambda net: net(ids))
    yield Part("captions through CLIP L", PAPER.mixer_batches[0], cost, moved)


def trained(
    build: Callable[[], nn.Module], call: Callable[[int, nn.Module], Tensor], batch: int = BATCH
) -> tuple[float, float]:
    """Return the bytes of a sample in a training step of `batch`, and those of the update."""
    with torch.device("meta"):
        network = build().to("meta")
        with Counted() as counted:
            call(batch, network).sum().backward()
    return counted.bytes / batch, UPDATE_BYTES * sum(p.numel() for p in network.parameters())


def called(build: Callable[[], nn.Module], call: Callable[[Any], object]) -> tuple[float, float]:
    """Return FLOP and bytes of a network's call with one sample; weights count for a batch of 64."""
    with torch.device("meta"), torch.no_grad():
        network = build().to("meta")
        with Counted() as counted, FlopCounterMode(display=False) as counter:
            call(network)
    products = (m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    weights = BYTES * sum(module.weight.numel() for module in products)
    return float(counter.get_total_flops()), counted.bytes - weights * (1 - 1 / BATCH)


def _vit_bytes() -> float:
    """Bytes of a ViT-B's forward pass for an image and of the gradients that pass through it."""
    architecture = flops.encoder_architecture(PAPER.tokenizer.encoder)
    side = PAPER.tokenizer.encoder.image_size
    _, moved = called(architecture.build, lambda net: net(torch.empty(1, 3, side, side)))
    return 2 * moved


def lines() -> Iterator[str]:
    """The table, in Markdown."""
    yield "| part | batch | GFLOP a sample | MB moved a sample | products | memory | at most a second | MFU |"
    yield "|---|---|---|---|---|---|---|---|"
    for part in parts():
        cells = (
            part.name,
            f"{part.batch:,}",
            f"{part.flop / 1e9:,.1f}",
            f"{part.moved / 1e6:,.0f}",
            f"{1e3 * part.products:.1f} ms",
            f"{1e3 * part.memory:.1f} ms",
            f"{part.per_second:,.0f}",
            f"{part.mfu:.0%}",
        )
        yield f"| {' | '.join(cells)} |"
