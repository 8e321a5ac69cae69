"""C16: what the loader of the tokenizer's training remembers of 120 million samples, and its open files.

All 17,181 shards are links to one file each, so that nothing but what is remembered grows. What a sample
costs is the index and the order of all of them, and the growth from one opened shard to the next: at the end
of the first epoch all have been opened.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import psutil

from benchmarks.compare import Comparison
from pipelines.dag import own_process
from reptok.data.blocks import BlockWriter
from reptok.data.images import encode_jpeg
from reptok.data.loader import TokenizerData
from reptok.data.shards import Sample, write_samples
from reptok.data.stream import Batches

SHARDS, ROWS, BATCH, SIDE = 17_181, 7_000, 512, 8
WARM, OPENED = 20, 120
GOAL_BYTES = 24.0


def run(shards: int = SHARDS) -> Comparison:
    """Measure in a process of its own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        _write(Path(folder), shards)
        fixed, slope, files = own_process.call(measure, folder)
    return Comparison(
        name=f"C16 bytes of loader memory a sample, {shards * ROWS / 1e6:.0f} M samples",
        ours=fixed + slope,
        peer="goal",
        theirs=GOAL_BYTES,
        ratio=GOAL_BYTES / (fixed + slope),
        checked=f"{fixed:.2f} for index and order, {slope:.2f} when its shard was opened; {files} open files",
    )


def measure(folder: str) -> tuple[float, float, int]:
    """Bytes a sample of index and order, bytes a sample of an opened shard, and files that are open more."""
    process = psutil.Process()
    before, files = process.memory_info().rss, process.num_fds()
    data = TokenizerData(Path(folder, "dataset"), Path(folder, "latents"))
    batches = Batches(data, BATCH, seed=0)
    batches.order.take(0, BATCH)
    opened = process.memory_info().rss
    after = {}
    for shard in range(OPENED):
        data.read(np.array([shard * ROWS]), np.zeros(1, bool))
        after[shard] = process.memory_info().rss
    growth = (after[OPENED - 1] - after[WARM]) / (OPENED - 1 - WARM) / ROWS
    return (opened - before) / batches.order.samples, growth, process.num_fds() - files


def _write(folder: Path, shards: int) -> None:
    """One shard of pictures and one of latents, under as many names as are asked for."""
    keys = [f"{number:024x}" for number in range(ROWS)]
    jpg = encode_jpeg(np.zeros((SIDE, SIDE, 3), np.uint8))
    names = [f"train-{number:05d}" for number in range(shards)]
    for kind in ("dataset", "latents"):
        (folder / kind).mkdir()
    first = folder / "dataset" / f"{names[0]}.tar"
    with first.open("wb") as file:
        write_samples(file, (Sample(key, jpg) for key in keys))
    packed = folder / "latents" / f"{names[0]}.tar"
    with packed.open("wb") as file:
        writer = BlockWriter(file)
        arrays = {"moments": np.zeros((ROWS, 2, 8, 1, 1), np.float16)}
        writer.add(keys, {**arrays, "frozen_token": np.zeros((ROWS, 2, 1, 4), np.float32)})
        writer.close()
    for name in names[1:]:
        for source in (first, packed):
            os.link(source, source.with_name(f"{name}.tar"))
    train = [{"shard": name, "rows": ROWS, "bytes": 0, "sha256": "0" * 64} for name in names]
    index = {"schema_version": 1, "image_size": SIDE, "class_names": None, "splits": {"train": train}}
    (folder / "dataset" / "index.json").write_text(json.dumps(index))
