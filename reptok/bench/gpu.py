"""The trainings at the paper's sizes on one GPU: speed, memory and waiting for data, in one table."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from reptok.bench.feed import feed, write_latents
from reptok.bench.measure import Measured, forget, measure
from reptok.bench.trainings import Settings, Training, generator_training, tokenizer_training
from reptok.configs import DecoderConfig, EncoderConfig, GeneratorConfig, RepTokConfig
from reptok.decoder.sizes import SIZES
from reptok.flops import mixer_config
from reptok.throughput import matmul_speed
from reptok.training.config import Precision

SECONDS = 15.0  # of timed steps, for each row
HEADER = ("", "what", "batch", "ms/step", "images/s", "TFLOP/s", "MFU", "peak GB", "goal on one H100")
WIDTHS = (3, 48, 5, 8, 8, 8, 6, 7, 0)


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        tokenizer: For G1, G2, G11 and G12.
        decoder_batch: Of these; halved until it fits in memory.
        mixer: For G7 and G8.
        mixer_batches: Of G7 and of G8.
    """

    tokenizer: RepTokConfig
    decoder_batch: int
    mixer: GeneratorConfig
    mixer_batches: tuple[int, int]


PAPER = Sizes(
    tokenizer=RepTokConfig(encoder=EncoderConfig(), decoder=SIZES["XL"]),
    decoder_batch=64,
    mixer=mixer_config(3),  # of the paper's table 3
    mixer_batches=(256, 2048),
)
TINY = Sizes(
    tokenizer=RepTokConfig(
        encoder=EncoderConfig(name="random_vitdebug8_reg", image_size=32),
        decoder=DecoderConfig(width=64, depth=2, heads=2, latent_size=8, token_dim=32),
    ),
    decoder_batch=8,
    mixer=GeneratorConfig(condition="class", num_classes=10, token_dim=32, dim=64, depth=2),
    mixer_batches=(32, 64),
)


@dataclass(frozen=True)
class Bench:
    """What a run measures with."""

    sizes: Sizes
    device: torch.device
    precision: Precision
    compile: bool
    seconds: float
    ceiling: float

    def measure(self, build: Callable[[Settings], Training], batch_size: int) -> Measured:
        """Measure a training at a batch of that size, or the largest that fits."""
        settings = Settings(
            device=self.device, batch_size=batch_size, precision=self.precision, compile=self.compile
        )
        return measure(build, settings, self.ceiling, seconds=self.seconds)


def run(device: torch.device | None = None, *, seconds: float = SECONDS, say: Callable[[str], None]) -> int:
    """Measure every row and say it as soon as it is known.

    Args:
        device: A GPU, or the CPU, where everything is tiny; the first GPU there is when None.
        seconds: Duration of each row's timed steps.
        say: Takes lines of text.

    Returns:
        How many rows could not be measured.
    """
    begun = time.perf_counter()
    if device is None:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    on_gpu = device.type == "cuda"
    precision: Precision = "bfloat16" if on_gpu else "float32"
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    how = f"{precision}, blocks {'compiled' if on_gpu else 'not compiled'}"
    say(f"{name}, torch {torch.__version__}, {how}, optimiser and average included, random data")
    if not on_gpu:
        say(
            "No GPU: everything is tiny and on the CPU. It shows that the command runs; no figure compares "
            "with a goal."
        )
    ceiling = matmul_speed(device, precision)
    say(f"a large matrix product: {ceiling / 1e12:,.3g} TFLOP/s, the 100 % of MFU\n")
    bench = Bench(PAPER if on_gpu else TINY, device, precision, on_gpu, seconds, ceiling)
    say(_line(HEADER))
    failures = 0
    for rows in (decoder_rows, tokenizer_rows, mixer_rows):
        try:
            for row in rows(bench):
                say(_line(row))
        except Exception as error:  # the other rows are worth having
            failures += 1
            say(f"{rows.__name__} failed: {type(error).__name__}: {error}")
        forget(device)
    say(f"\n{time.perf_counter() - begun:.0f} s in all")
    return failures


def decoder_rows(bench: Bench) -> Iterator[tuple[str, ...]]:
    """G1, G11 and G12: the decoder alone, from resident batches and from packed blocks on disk."""
    found = bench.measure(
        lambda settings: tokenizer_training(bench.sizes.tokenizer, settings, images=False),
        bench.sizes.decoder_batch,
    )
    row = _row("G1", "decoder step, cached latents and tokens", found, ">= 450 images/s")
    yield row
    batch, peak = row[2], row[-2]
    yield ("G11", "its peak memory, no recomputation", batch, *[""] * 4, peak, "<= 60 GB at batch 64")
    with tempfile.TemporaryDirectory() as folder:
        data = write_latents(Path(folder), bench.sizes.tokenizer.decoder)
        fed = feed(found.training, data, bench.device, seconds=bench.seconds)
    what = f"the same from {sum(data.rows):,} samples on disk"
    shares = f"idle {fed.idle:.2%} of the time, waits for data {fed.waiting:.2%}"
    yield ("G12", what, batch, shares.rjust(sum(WIDTHS[3:8]) + 8), *[""] * 4, "<= 1 % idle")


def tokenizer_rows(bench: Bench) -> Iterator[tuple[str, ...]]:
    """G2: the `[cls]` gradient too."""
    found = bench.measure(
        lambda settings: tokenizer_training(bench.sizes.tokenizer, settings), bench.sizes.decoder_batch
    )
    yield _row("G2", "whole tokenizer step, cached latents and targets", found, ">= 400 images/s")


def mixer_rows(bench: Bench) -> Iterator[tuple[str, ...]]:
    """G7 and G8: the mixer by class, from cached tokens."""
    goals = ("<= 9 ms", ">= 75,000 images/s")
    for name, goal, batch_size in zip(("G7", "G8"), goals, bench.sizes.mixer_batches, strict=True):
        found = bench.measure(lambda settings: generator_training(bench.sizes.mixer, settings), batch_size)
        yield _row(name, "mixer step, cached tokens", found, goal)
        del found
        forget(bench.device)


def _row(name: str, what: str, found: Measured, goal: str) -> tuple[str, ...]:
    return (
        name,
        what,
        f"{found.training.batch_size}",
        f"{1e3 * found.timing.seconds:.2f}",
        f"{found.images_per_second:,.0f}",
        f"{found.flops_per_second / 1e12:,.3g}",
        f"{found.utilisation:.1%}",
        f"{found.timing.peak_bytes / 1e9:.1f}",
        goal,
    )


def _line(cells: tuple[str, ...]) -> str:
    padded = [
        cell.ljust(width) if number < 2 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()
