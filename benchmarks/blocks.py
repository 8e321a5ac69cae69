"""Reading latents and tokens: packed blocks against per-sample members of a webdataset tar."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import webdataset as wds

from benchmarks.compare import Comparison, compare
from reptok.data.blocks import BlockWriter, iterate_blocks

SAMPLES = 4000
TOKEN_BYTES, LATENT_BYTES = 768 * 2, 4 * 32 * 32 * 2

Rows = Iterator[tuple[np.ndarray, np.ndarray]]


def run() -> Comparison:
    """Read every sample of one shard."""
    with tempfile.TemporaryDirectory() as folder:
        blocks, members = _write_both(Path(folder), SAMPLES)
        pairs = zip(_from_blocks(blocks), _from_members(members), strict=True)
        if not all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs):
            raise RuntimeError("blocks and members hold different samples")
        payload = SAMPLES * (TOKEN_BYTES + LATENT_BYTES)
        stored = [path.stat().st_size / payload for path in (blocks, members)]
        return compare(
            f"read {SAMPLES:,} latents and tokens from packed blocks",
            lambda: sum(1 for _ in _from_blocks(blocks)),
            "webdataset, a member each",
            lambda: sum(1 for _ in _from_members(members)),
            f"equal arrays; bytes stored {stored[0]:.3f} and {stored[1]:.3f} of the payload",
        )


def _write_both(folder: Path, samples: int) -> tuple[Path, Path]:
    """Write float16 latents (4, 32, 32) and tokens (768,) as packed blocks and as a webdataset tar."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((samples, 4, 32, 32), np.float32).astype(np.float16)
    tokens = rng.standard_normal((samples, 768), np.float32).astype(np.float16)
    keys = [f"{number:012d}" for number in range(samples)]
    blocks, members = folder / "blocks.tar", folder / "members.tar"
    with blocks.open("wb") as file:
        writer = BlockWriter(file)
        writer.add(keys, {"latent": latents, "token": tokens})
        writer.close()
    with wds.TarWriter(str(members), mtime=0) as sink:
        for key, latent, token in zip(keys, latents, tokens, strict=True):
            sink.write({"__key__": key, "latent.npy": npy(latent), "token.npy": npy(token)})
    return blocks, members


def _from_blocks(path: Path) -> Rows:
    for block in iterate_blocks(path):
        yield from zip(block["latent"], block["token"], strict=True)


def _from_members(path: Path) -> Rows:
    for sample in wds.WebDataset(str(path), shardshuffle=False):
        yield np.load(io.BytesIO(sample["latent.npy"])), np.load(io.BytesIO(sample["token.npy"]))


def npy(array: np.ndarray) -> bytes:
    """Return an array as the bytes of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
