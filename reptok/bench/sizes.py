"""What a run measures, and with what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reptok.bench.measure import Measured, measure
from reptok.bench.networks import SD_VAE
from reptok.bench.result import Goal, Result
from reptok.bench.trainings import Settings, Training
from reptok.configs import DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
from reptok.decoder.sizes import SIZES
from reptok.flops import mixer_config
from reptok.training.config import Precision


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        tokenizer: The tokenizer.
        batch: Of its steps, halved until they fit in memory, and of the frozen networks.
        mixer: The generator.
        mixer_batches: Of G7 and of G8.
        image_size: Side of an image, in pixels.
        vae: Channels of the autoencoder.
        text: Width, depth, heads and vocabulary of the language model.
        text_length: Tokens of a caption.
        steps: Of a decode.
    """

    tokenizer: RepTokConfig
    batch: int
    mixer: GeneratorConfig
    mixer_batches: tuple[int, int]
    image_size: int
    vae: tuple[int, ...]
    text: tuple[int, int, int, int]
    text_length: int
    steps: int


PAPER = Sizes(
    tokenizer=RepTokConfig(encoder=EncoderConfig(), decoder=SIZES["XL"]),
    batch=64,
    mixer=mixer_config(3),  # of the paper's table 3
    mixer_batches=(256, 2048),
    image_size=256,
    vae=SD_VAE,
    text=(768, 12, 12, 49408),
    text_length=77,
    steps=50,
)
TINY = Sizes(
    tokenizer=RepTokConfig(
        encoder=EncoderConfig(name="random_vitdebug8_reg", image_size=32),
        decoder=DecoderConfig(width=64, depth=2, heads=2, latent_size=8, token_dim=32),
    ),
    batch=8,
    mixer=GeneratorConfig(condition="class", num_classes=10, token_dim=32, dim=64, depth=2),
    mixer_batches=(32, 64),
    image_size=64,
    vae=(32, 32, 32, 32),
    text=(32, 2, 2, 100),
    text_length=16,
    steps=4,
)


@dataclass(frozen=True)
class Bench:
    """What a run measures with.

    Attributes:
        sizes: Of everything.
        device: Where.
        precision: Of products.
        compile: Whether blocks are compiled.
        seconds: Duration of a row's timed steps.
        ceiling: FLOP/s of a large product.
        peak: FLOP/s that the maker promises; 0 where it is not known.
    """

    sizes: Sizes
    device: torch.device
    precision: Precision
    compile: bool
    seconds: float
    ceiling: float
    peak: float = 0.0

    def settings(self, batch_size: int, **more: object) -> Settings:
        """How a training of such a batch runs."""
        settings = Settings(
            device=self.device, batch_size=batch_size, precision=self.precision, compile=self.compile
        )
        return settings if not more else Settings(**{**vars(settings), **more})  # type: ignore[arg-type]

    def measure(self, build: Callable[[Settings], Training], batch_size: int, **more: object) -> Measured:
        """Measure a training at a batch of that size, or the largest that fits."""
        return measure(build, self.settings(batch_size, **more), self.ceiling, seconds=self.seconds)

    def row(self, name: str, what: str, found: Measured, goal: Goal | None = None) -> Result:
        """The row of a training."""
        training = found.training
        return Result.of(
            name, what, training.batch_size, found.timing, training.flops_per_image, ceiling=self.ceiling,
            peak=self.peak, goal=goal,
        )  # fmt: skip
