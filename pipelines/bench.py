"""Measure packed blocks against per-sample tar members: `make bench` (ARGS=2000 for fewer samples).

One run, both sides interleaved, equal contents checked first; the figure is the ratio of the process's
CPU-seconds, median of five pairs, so that another machine's speed does not enter.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import webdataset as wds
from rich.console import Console
from rich.table import Table

from reptok.data.blocks import BlockWriter, iterate_blocks

PAIRS = 5
TOKEN_BYTES, LATENT_BYTES = 768 * 2, 4 * 32 * 32 * 2


def write_both(folder: Path, samples: int) -> tuple[Path, Path]:
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
            sink.write({"__key__": key, "latent.npy": _npy(latent), "token.npy": _npy(token)})
    return blocks, members


def from_blocks(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (latent, token) of a shard of packed blocks."""
    for block in iterate_blocks(path):
        yield from zip(block["latent"], block["token"], strict=True)


def from_members(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every (latent, token) of a webdataset tar with members of its own for each sample."""
    for sample in wds.WebDataset(str(path), shardshuffle=False):
        yield np.load(io.BytesIO(sample["latent.npy"])), np.load(io.BytesIO(sample["token.npy"]))


def cpu_seconds(read: Callable[[Path], Iterator[object]], path: Path) -> float:
    """CPU-seconds of reading a shard once."""
    begun = time.process_time()
    for _ in read(path):
        pass
    return time.process_time() - begun


def main(samples: int = 10_000) -> int:
    """Print the table; returns 1 if the two do not hold the same."""
    with tempfile.TemporaryDirectory() as folder:
        blocks, members = write_both(Path(folder), samples)
        pairs = zip(from_blocks(blocks), from_members(members), strict=True)
        if not all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs):
            print("error: blocks and members hold different samples", file=sys.stderr)
            return 1
        times = [(cpu_seconds(from_blocks, blocks), cpu_seconds(from_members, members)) for _ in range(PAIRS)]
        ratio = median(theirs / ours for ours, theirs in times)
        payload = samples * (TOKEN_BYTES + LATENT_BYTES)
        stored = [path.stat().st_size / payload for path in (blocks, members)]
        rates = [samples / median(side) for side in zip(*times, strict=True)]
    table = Table(box=None, header_style="bold")
    for column in ("what", "packed blocks", "webdataset members", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("samples per CPU-second", f"{rates[0]:,.0f}", f"{rates[1]:,.0f}", f"{ratio:.1f} x")
    table.add_row("bytes stored / payload", f"{stored[0]:.3f}", f"{stored[1]:.3f}", "")
    Console(width=100).print(table)
    return 0


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
