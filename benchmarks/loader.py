"""A shuffled epoch of latents and tokens in batches: our loader against webdataset with as large a window."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from torch import Tensor

from benchmarks.blocks import npy
from benchmarks.compare import Comparison, compare
from reptok.data.blocks import BlockWriter
from reptok.data.loader import fetch, gather
from reptok.data.order import WINDOW
from reptok.data.rows import BlockRows, Shards
from reptok.data.stream import Batches, Columns

SAMPLES, BATCH, PAIRS = 12_000, 60, 5
SHAPES = {"latent": (4, 32, 32), "token": (768,)}

Batch = tuple[np.ndarray, Tensor, Tensor]


class StoredSamples:
    """Latents and tokens of one shard of packed blocks."""

    def __init__(self, path: Path, samples: int):
        self.rows = [samples]
        self._shards = Shards([path], self.rows, BlockRows)

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> Batch:
        """Sample numbers (B,), latents float32 (B, 4, 32, 32), tokens float32 (B, 768)."""
        latents, tokens = (gather(self._shards, name, samples, flipped).float() for name in SHAPES)
        return samples, latents, tokens

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch them."""
        for name in SHAPES:
            fetch(self._shards, name, samples, flipped)


def run(samples: int = SAMPLES) -> Comparison:
    """Read an epoch in float32 batches; stored as float16, 9.7 KB a sample."""
    with tempfile.TemporaryDirectory() as folder:
        blocks, members = _write_both(Path(folder), samples)
        data = StoredSamples(blocks, samples)
        mine, others = _content(_ours(data)), _content(_theirs(members))
        if mine != others or len(mine) != samples:
            raise RuntimeError("the two loaders give different samples")
        return compare(
            f"a shuffled epoch of {samples:,} latents and tokens, window {WINDOW:,}",
            lambda: sum(len(numbers) for numbers, *_ in _ours(data)),
            "webdataset, a member each, a buffer as large",
            lambda: sum(len(numbers) for numbers, *_ in _theirs(members)),
            "the same samples with the same values, each once",
            PAIRS,
        )


def _write_both(folder: Path, samples: int) -> tuple[Path, Path]:
    """Write the same random samples as packed blocks and as a webdataset tar."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal((samples, *shape), np.float32).astype(np.float16)
        for name, shape in SHAPES.items()
    }
    keys = [f"{number:012d}" for number in range(samples)]
    blocks, members = folder / "blocks.tar", folder / "members.tar"
    with blocks.open("wb") as file:
        writer = BlockWriter(file)
        writer.add(keys, {name: array[:, None] for name, array in arrays.items()})  # no mirror images
        writer.close()
    with wds.TarWriter(str(members), mtime=0) as sink:
        for number, key in enumerate(keys):
            sink.write({"__key__": key, **{f"{name}.npy": npy(a[number]) for name, a in arrays.items()}})
    return blocks, members


def _ours(data: StoredSamples) -> Iterator[Batch]:
    batches: Batches[Any] = Batches(data, BATCH, seed=0, flip=False, window=WINDOW)
    return islice(batches.stream(0), sum(data.rows) // BATCH)


def _theirs(path: Path) -> Iterator[Batch]:
    shuffled = wds.WebDataset(str(path), shardshuffle=False).shuffle(WINDOW, rng=random.Random(0))
    samples = iter(shuffled)
    while chosen := list(islice(samples, BATCH)):
        latents, tokens = (
            torch.from_numpy(np.stack([np.load(io.BytesIO(sample[f"{name}.npy"])) for sample in chosen]))
            for name in SHAPES
        )
        yield np.array([int(sample["__key__"]) for sample in chosen]), latents.float(), tokens.float()


def _content(batches: Iterator[Batch]) -> dict[int, tuple[float, float]]:
    """Each sample's number, and sums that stand for its values."""
    return {
        int(number): (float(a), float(b))
        for numbers, latents, tokens in batches
        for number, a, b in zip(numbers, latents.flatten(1).sum(1), tokens.sum(1), strict=True)
    }
