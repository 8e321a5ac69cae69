"""A shuffled epoch of latents and tokens in batches: our loader against webdataset with as large a window."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from torch import Tensor

from pipelines.bench.compare import Comparison, compare
from reptok.bench.feed import StoredLatents, write_latents
from reptok.configs import DecoderConfig
from reptok.data.blocks import iterate_blocks, unpack_keys
from reptok.data.loader import Batches
from reptok.data.order import WINDOW

SAMPLES, BATCH, PAIRS = 12_000, 60, 5

Batch = tuple[list[str], Tensor, Tensor]


def run(samples: int = SAMPLES) -> Comparison:
    """Read an epoch of float32 batches of moments (8, 32, 32) and tokens (768,)."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_latents(Path(folder), DecoderConfig(), pin=False, samples=samples)
        members = Path(folder) / "members.wds"
        _write_members(members, sorted(Path(folder).glob("*.tar")))
        mine, others = _content(_ours(data, samples)), _content(_theirs(members))
        if mine != others or len(mine) != samples:
            raise RuntimeError("the two loaders give different samples")
        return compare(
            f"a shuffled epoch of {samples:,} latents and tokens, window {WINDOW:,}",
            lambda: sum(len(keys) for keys, *_ in _ours(data, samples)),
            "webdataset, a member each, a buffer as large",
            lambda: sum(len(keys) for keys, *_ in _theirs(members)),
            "the same samples with the same values, each once",
            PAIRS,
        )


def _write_members(path: Path, shards: list[Path]) -> None:
    """Write the unmirrored half of packed blocks as a webdataset tar."""
    with wds.TarWriter(str(path), mtime=0) as sink:
        for shard in shards:
            for block in iterate_blocks(shard):
                keys = unpack_keys(block["keys"])
                rows = zip(keys, block["moments"][:, 0], block["frozen_token"][:, 0], strict=True)
                for key, moments, token in rows:
                    sink.write({"__key__": key, "moments.npy": _npy(moments), "token.npy": _npy(token)})


def _ours(data: StoredLatents, samples: int) -> Iterator[Batch]:
    stream = Batches(data, BATCH, seed=0, flip=False, window=WINDOW).stream(0)
    for batch in islice(stream, samples // BATCH):
        yield [f"{number:09d}" for number in batch.samples], batch.moments, batch.frozen_token


def _theirs(path: Path) -> Iterator[Batch]:
    shuffled = wds.WebDataset(str(path), shardshuffle=False).shuffle(WINDOW, rng=random.Random(0))
    samples = iter(shuffled)
    while chosen := list(islice(samples, BATCH)):
        moments, tokens = (
            torch.from_numpy(np.stack([np.load(io.BytesIO(sample[name])) for sample in chosen])).float()
            for name in ("moments.npy", "token.npy")
        )
        yield [sample["__key__"] for sample in chosen], moments, tokens


def _content(batches: Iterator[Batch]) -> dict[str, tuple[float, float]]:
    """Each sample's key, and a sum that stands for its values."""
    return {
        key: (float(a), float(b))
        for keys, moments, tokens in batches
        for key, a, b in zip(keys, moments.flatten(1).sum(1), tokens.flatten(1).sum(1), strict=True)
    }


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
