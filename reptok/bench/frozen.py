"""What frozen networks compute: latents and tokens of images, images of tokens, states of captions."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reptok import flops
from reptok.bench.clock import time_steps
from reptok.bench.feed import StoredImages, feed, jpegs, write_latents
from reptok.bench.networks import TextTower, vae_decoder, vae_encoder
from reptok.bench.result import Goal, Result
from reptok.bench.sizes import Bench
from reptok.bench.steps import rate
from reptok.bench.trainings import build_tokenizer, tokenizer_training
from reptok.data.blocks import BlockWriter
from reptok.data.images import decode_image
from reptok.data.transforms import to_float
from reptok.encoder.ssl import SSLEncoder
from reptok.training.step import products_in


def encode(bench: Bench) -> Iterator[Result]:
    """G4 and G5: moments and frozen `[cls]` of image and mirror image; the `[cls]` alone."""
    both, cls, images = _encoders(bench)
    cost, alone = _cost(bench, both, images), _cost(bench, cls, images)
    yield _row(bench, "G4", "VAE moments and [cls] of image and mirror", both, images, cost, rate(450))
    yield _row(bench, "G5", "[cls] alone", cls, images, alone, rate(8000))


def decode(bench: Bench) -> Iterator[Result]:
    """G9: tokens to images."""
    sizes = bench.sizes
    tokenizer = build_tokenizer(sizes.tokenizer, bench.device)
    vae = _frozen(vae_decoder(sizes.vae), bench)
    if bench.compile:
        from reptok.training.blocks import compile_blocks

        compile_blocks(tokenizer.decoder)
    config = sizes.tokenizer.decoder
    tokens = torch.randn(sizes.batch, config.num_tokens, config.token_dim, device=bench.device)

    def work(given: Tensor) -> Tensor:
        image: Tensor = vae(tokenizer.detokenize_latent(given, num_steps=sizes.steps))
        return image

    what = f"{sizes.steps}-step decode and VAE"
    yield _row(bench, "G9", what, work, tokens, _cost(bench, work, tokens), rate(30))


def jpeg(bench: Bench) -> Iterator[Result]:
    """G6, and the tokenizer's step, from JPEG files that threads decode."""
    sizes, threads = bench.sizes, os.cpu_count() or 1
    both, _, images = _encoders(bench)
    files = jpegs(sizes.image_size, 256)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as pool:

        def decoded() -> np.ndarray:
            return np.stack([decode_image(files[n % len(files)]) for n in range(sizes.batch)])

        ahead = deque(pool.submit(decoded) for _ in range(threads + 1))
        with (Path(folder) / "00000.tar").open("wb") as file:
            writer, number = BlockWriter(file), [0]

            def work(_: Tensor) -> None:
                pixels = ahead.popleft().result()
                ahead.append(pool.submit(decoded))
                moments, cls = both(torch.from_numpy(pixels).to(bench.device, non_blocking=True))
                keys = [f"{number[0] + row:09d}" for row in range(sizes.batch)]
                number[0] += sizes.batch
                arrays = {"moments": moments.half(), "frozen_token": cls.float()}
                writer.add(keys, {name: _pair(array) for name, array in arrays.items()})

            yield _row(
                bench, "G6", f"G4 from JPEG files, {threads} threads, blocks written", work, images,
                goal=Goal(field="per_second", bound=405, at_least=True, text=">= 0.9 x G4"),
            )  # fmt: skip
        data = write_latents(Path(folder), sizes.tokenizer.decoder, samples=4 * sizes.batch + 64)
        fed = feed(
            tokenizer_training(sizes.tokenizer, bench.settings(sizes.batch)),
            StoredImages(data, jpegs(sizes.tokenizer.decoder.latent_size * 8, 256)),
            bench.device,
            seconds=bench.seconds,
            readers=threads,
        )
    yield Result(
        name="G2", what=f"its steps fed with JPEG files, {threads} threads", idle=fed.idle,
        note=f"idle {fed.idle:.2%} of the time, waits for data {fed.waiting:.2%}",
    )  # fmt: skip


def text(bench: Bench) -> Iterator[Result]:
    """Captions' states, as a text-to-image step needs them one batch ahead."""
    sizes, batch = bench.sizes, bench.sizes.mixer_batches[0]
    width, depth, heads, vocabulary = sizes.text
    tower = _frozen(TextTower(width, depth, heads, vocabulary), bench)
    ids = torch.randint(vocabulary, (batch, sizes.text_length), device=bench.device)
    what = f"captions of {sizes.text_length} tokens through a CLIP L text tower"
    yield _row(bench, "text", what, tower, ids, _cost(bench, tower, ids))


def _encoders(
    bench: Bench,
) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], Callable[[Tensor], Tensor], Tensor]:
    """(moments and cls of images and mirror images, cls of images, images uint8 (B, H, W, 3))."""
    sizes, device = bench.sizes, bench.device
    architecture = flops.encoder_architecture(sizes.tokenizer.encoder)
    with device:
        encoder = SSLEncoder(sizes.tokenizer.encoder, architecture.build(), architecture)
    vae = _frozen(vae_encoder(sizes.vae), bench)

    def cls(images: Tensor) -> Tensor:
        return encoder.frozen(to_float(images))

    def both(images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = to_float(images)
        pixels = torch.cat([pixels, pixels.flip(-1)])
        return vae(pixels), encoder.frozen(pixels)

    side = sizes.image_size
    return both, cls, torch.randint(256, (sizes.batch, side, side, 3), dtype=torch.uint8, device=device)


def _frozen(network: nn.Module, bench: Bench) -> nn.Module:
    network = network.to(bench.device).eval().requires_grad_(False)
    if bench.device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if bench.compile:
        network.compile()
    return network


def _cost(bench: Bench, work: Callable[[Tensor], object], batch: Tensor) -> float:
    """FLOP a sample, counted."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        work(batch[:1])
    return float(counter.get_total_flops())


def _row(
    bench: Bench,
    name: str,
    what: str,
    work: Callable[[Tensor], object],
    batch: Tensor,
    cost: float = 0.0,
    goal: Goal | None = None,
) -> Result:
    def step() -> None:
        with torch.no_grad(), products_in(bench.precision, bench.device):
            work(batch)

    timing = time_steps(step, bench.device, seconds=bench.seconds)
    return Result.of(name, what, len(batch), timing, cost, ceiling=bench.ceiling, peak=bench.peak, goal=goal)


def _pair(array: Tensor) -> np.ndarray:
    """(2 B, ...) of images, then of mirror images, to (B, 2, ...) on the host."""
    return array.unflatten(0, (2, -1)).transpose(0, 1).contiguous().cpu().numpy()
