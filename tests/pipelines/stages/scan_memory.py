"""Judge a synthetic list in this process and print the memory that it took: scan_memory.py FOLDER ROWS."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines.stages.select_urls import SelectUrlsConfig, scanned
from pipelines.urls.rules import Filters

BATCH = 10_000


def tables(rows: int) -> Iterator[tuple[str, pa.Table]]:
    """A tenth of the URLs come twice, and a tenth of the images nearly."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, BATCH):
        numbers = np.arange(start, start + BATCH)
        numbers[::10] = rng.integers(0, start + BATCH, BATCH // 10)
        hashes = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        hashes[::20] ^= np.uint64(4)
        yield (
            "list",
            pa.table(
                {
                    "url": [f"http://host-{number % 9973}.example/images/{number}.jpg" for number in numbers],
                    "text": ["a picture of a thing"] * BATCH,
                    "width": rng.integers(100, 2000, BATCH),
                    "height": rng.integers(100, 2000, BATCH),
                    "watermark_score": rng.random(BATCH),
                    "image_phash": [f"{value:016x}" for value in hashes.tolist()],
                }
            ),
        )


def main(folder: Path, rows: int) -> None:
    filters = Filters(min_size=256, max_aspect_ratio=2.0, max_watermark_score=0.5)
    config = SelectUrlsConfig(sources=("list",), filters=filters, dedup_distance=1)
    begun = time.process_time()
    scan = scanned(config, lambda only: tables(rows), folder)
    seconds = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"bytes": peak, "rows_out": scan.alive.total(), "cpu_seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
