"""Selection of URLs: rows of a synthetic list in files of a million rows, with 16,384-fold repeats.

    python -m benchmarks.selection [MILLIONS ...]      `make bench` runs 1 and 4

A tenth of the rows have a URL that came before, a fifth an image of which there are 16,384. Two Ray actors
judge the files, search the hashes and write the rows that stay. Time and memory of a row must not grow with
the list: the ratio compares the first size with the last. Every row is accounted for before a size counts.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.compare import Comparison
from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.stages.select_urls import SelectUrls, SelectUrlsConfig
from pipelines.urls.rules import Filters

ROWS = 1_000_000
REPEATS = 16_384
WORKERS = 2
FILTERS = Filters(min_size=256, max_aspect_ratio=2.0, max_watermark_score=0.5)


def write_list(folder: Path, files: int, rows: int = ROWS) -> None:
    """Write the files; those of a longer list begin with those of a shorter one."""
    for number in range(files):
        rng = np.random.default_rng(number)
        at = np.arange(number * rows, (number + 1) * rows)
        at[::10] = rng.integers(0, (number + 1) * rows, len(at[::10]))
        images = at.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        images[1::5] = (at[1::5] // (5 * REPEATS)).astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        names = [pc.cast(pa.array(values), pa.string()) for values in (at % 9973, at)]
        table = {
            "url": pc.binary_join_element_wise("http://host-", names[0], ".example/", names[1], ".jpg", ""),
            "text": pa.array(["a picture of a thing"] * rows),
            "width": rng.integers(200, 1000, rows).astype(np.int32),
            "height": rng.integers(200, 1000, rows).astype(np.int32),
            "watermark_score": rng.random(rows, np.float32),
            "image_phash": hexadecimal(images),
        }
        pq.write_table(pa.table(table), folder / f"list-{number:03d}.parquet", row_group_size=100_000)


def hexadecimal(values: np.ndarray) -> pa.StringArray:
    """Sixteen digits for each of uint64 (N,)."""
    digits = values.astype(">u8").tobytes().hex().encode()
    offsets = np.arange(0, 16 * len(values) + 1, 16, dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(offsets), pa.py_buffer(digits))


def measure(folder: Path, distance: int) -> tuple[int, float, float, int]:
    """Rows, seconds, CPU-seconds of all processes, and the memory of the largest worker beyond its start."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        config = SelectUrlsConfig(
            sources=(f"{folder}/*.parquet",),
            filters=FILTERS,
            dedup_distance=distance,
            workers=WorkerResources(workers=WORKERS),
        )
        with _watched() as used:
            stats = SelectUrls(config).run({}, Workspace(f"{out}/urls"))
    dropped = sum(value for key, value in stats.items() if key.startswith("dropped_"))
    if stats["rows_in"] != stats["rows_out"] + dropped:
        raise RuntimeError(f"rows were lost: {stats}")
    return int(stats["rows_in"]), used["seconds"], used["cpu"], int(used["memory"])


@contextmanager
def _watched() -> Iterator[dict[str, float]]:
    """Seconds, CPU-seconds and the largest process meanwhile; workers end with their jobs, hence polls."""
    used = {"memory": 0.0}
    seconds: dict[int, float] = {}
    done = threading.Event()
    me = psutil.Process()
    before = {p.pid: _cpu(p) for p in (me, *me.children(recursive=True))}
    begun = time.monotonic()

    def poll() -> None:
        while not done.wait(0.2):
            for process in (me, *me.children(recursive=True)):
                try:
                    seconds[process.pid] = _cpu(process) - before.get(process.pid, 0.0)
                    used["memory"] = max(used["memory"], process.memory_info().rss)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        used["seconds"] = time.monotonic() - begun
        done.set()
        thread.join()
        used["cpu"] = sum(seconds.values())


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def run(millions: Sequence[int] = (1, 4), distance: int = 0) -> Comparison:
    """Measure the sizes, smallest first."""
    cluster.configure(ClusterConfig(num_cpus=WORKERS))
    cluster.ensure()
    found = []
    with tempfile.TemporaryDirectory() as place:
        for files in millions:
            folder = Path(place, str(files))
            folder.mkdir()
            write_list(folder, files)
            rows, seconds, cpu, memory = measure(folder, distance)
            found.append((rows, seconds, cpu, memory))
            line = f"{seconds / rows * 1e6:.2f} s of wall, {cpu / rows * 1e6:.2f} CPU-s a million rows"
            print(f"  {rows:,} rows: {line}, {memory / 2**20:.0f} MB at most", file=sys.stderr, flush=True)
            for path in folder.iterdir():
                path.unlink()
    cluster.shutdown()
    (rows, seconds, cpu, _), (most, longer, last, memory) = found[0], found[-1]
    slope = (longer - seconds) / max(1, most - rows) * 1e6
    return Comparison(
        name=f"selection: {most:,} rows of a list, a million of them",
        ours=last / most * 1e6,
        peer=f"of {rows:,} rows",
        theirs=cpu / rows * 1e6,
        ratio=(cpu / rows) / (last / most),
        checked=f"every row accounted for; {slope:.2f} us of wall a row more; {memory / 2**20:.0f} MB",
    )


if __name__ == "__main__":
    found = run([int(value) for value in sys.argv[1:]] or (2, 5, 10, 20))
    print(f"{found.name}: {found.checked}; ratio {found.ratio:.2f}")
