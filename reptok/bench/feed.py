"""A training fed from packed blocks on disk against the same training on one batch that lies in memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import cast

import numpy as np
import torch
from PIL import Image

from reptok.bench.clock import time_span
from reptok.bench.trainings import Training
from reptok.configs import DecoderConfig
from reptok.data.batch import TokenizerBatch
from reptok.data.blocks import SAMPLES_PER_BLOCK, BlockWriter
from reptok.data.images import decode_image, encode_jpeg
from reptok.data.loader import fetch, gather
from reptok.data.order import WINDOW
from reptok.data.rows import BlockRows, Shards
from reptok.data.stream import Batches, Columns

ROUNDS = 5
BLOCKS_PER_SHARD = 4


@dataclass(frozen=True)
class Feeding:
    """What the way of the data costs a training.

    Attributes:
        idle: Share of the fed steps' time by which they outlast steps without a loader; noise can make it
            negative.
        waiting: Share of the time in which the training's thread waited for the loader.
    """

    idle: float
    waiting: float


class StoredLatents:
    """Moments and frozen tokens of packed blocks, as `encode_latents` writes them; no images."""

    def __init__(self, paths: list[Path], rows: list[int]):
        """Read `rows` samples from each of the shards `paths`."""
        self.rows = rows
        self._shards = Shards(paths, rows, BlockRows)

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> TokenizerBatch:
        """Read samples by number, mirrored where `flipped`."""
        return TokenizerBatch(
            images=None,
            moments=gather(self._shards, "moments", samples, flipped),
            frozen_token=gather(self._shards, "frozen_token", samples, flipped),
            samples=samples,
        )

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch them."""
        for name in ("moments", "frozen_token"):
            fetch(self._shards, name, samples, flipped)


class StoredImages:
    """The same with images, of which some JPEG files stand for all."""

    def __init__(self, latents: StoredLatents, files: list[bytes]):
        self.rows, self._latents, self._files = latents.rows, latents, files

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> TokenizerBatch:
        """Read samples by number, mirrored where `flipped`."""
        pixels = np.stack([decode_image(self._files[number % len(self._files)]) for number in samples])
        pixels[flipped] = pixels[flipped, :, ::-1]
        return replace(self._latents.read(samples, flipped), images=torch.from_numpy(pixels))

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch what lies on disk."""
        self._latents.fetch(samples, flipped)


def jpegs(side: int, count: int) -> list[bytes]:
    """JPEG files of random smooth pictures, about as large as photographs of that size."""
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, side // 4, side // 4, 3), np.uint8)
    return [
        encode_jpeg(np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)))
        for picture in small
    ]


def write_latents(folder: Path, config: DecoderConfig, samples: int = WINDOW + 2000) -> StoredLatents:
    """Write shards of random moments (float16) and frozen tokens (float32), each image's and its mirror's."""
    random = np.random.default_rng(0)
    channels, side = 2 * config.latent_channels, config.latent_size
    paths: list[Path] = []
    rows: list[int] = []
    while (start := sum(rows)) < samples:
        rows.append(min(BLOCKS_PER_SHARD * SAMPLES_PER_BLOCK, samples - start))
        paths.append(folder / f"{len(paths):05d}.tar")
        with paths[-1].open("wb") as file:
            blocks = BlockWriter(file)
            for first in range(start, start + rows[-1], SAMPLES_PER_BLOCK):
                count = min(SAMPLES_PER_BLOCK, start + rows[-1] - first)
                moments = random.standard_normal((count, 2, channels, side, side), np.float32)
                token = random.standard_normal((count, 2, config.num_tokens, config.token_dim), np.float32)
                keys = [f"{number:09d}" for number in range(first, first + count)]
                blocks.add(keys, {"moments": moments.astype(np.float16), "frozen_token": token})
            blocks.close()
    return StoredLatents(paths, rows)


def feed(
    training: Training,
    data: StoredLatents | StoredImages,
    device: torch.device,
    *,
    seconds: float = 20.0,
    readers: int = 1,
) -> Feeding:
    """Train from the loader and from one batch in turns, about `seconds` altogether.

    Args:
        training: Warmed up, on batches without images.
        data: On disk.
        device: Where the training computes.
        seconds: Duration; divided into rounds of both kinds.
        readers: Threads that read and decode.
    """
    batches = Batches(data, training.batch_size, seed=0, pin=device.type == "cuda", readers=readers)
    stream = cast(Generator[TokenizerBatch, None, None], batches.stream(0))
    training.step(next(stream))
    once = time_span(lambda: training.step(training.batch), device)
    steps = max(2, int(seconds / (2 * ROUNDS * once)))
    idle, waiting = [], []
    for _ in range(ROUNDS):
        waits: list[float] = []
        resident = time_span(lambda: _train(training, iter([training.batch] * steps), []), device)
        fed = time_span(lambda waits=waits: _train(training, _take(stream, steps), waits), device)  # type: ignore[misc]
        idle.append(1 - resident / fed)
        waiting.append(sum(waits) / fed)
    stream.close()
    return Feeding(median(idle), median(waiting))


def _train(training: Training, batches: Iterator[TokenizerBatch], waits: list[float]) -> None:
    while True:
        asked = perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        waits.append(perf_counter() - asked)
        training.step(batch)


def _take(stream: Iterator[TokenizerBatch], steps: int) -> Iterator[TokenizerBatch]:
    for _ in range(steps):
        yield next(stream)
