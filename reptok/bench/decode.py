"""How many JPEG files the loader's threads decode, by their number: what a GPU can be fed with."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from reptok.data.images import centre_crop, decode_image

PART = 16
"""Files that a thread decodes one after the other, as it does those of a batch."""


@dataclass(frozen=True)
class DecodeRate:
    """Images decoded and cropped.

    Attributes:
        threads: At the same time.
        per_second: Images a second, all threads together.
        per_core: Images in a second of one core's time, whatever else the machine computes meanwhile.
    """

    threads: int
    per_second: float
    per_core: float


def decode_rates(
    files: Sequence[bytes], side: int, *, seconds: float = 3.0, cores: int | None = None
) -> Iterator[DecodeRate]:
    """Measure with one thread, two, four ... and as many as there are cores.

    Args:
        files: Images, each of which is decoded several times.
        side: Of the square that is kept, in pixels.
        seconds: Duration of each measurement.
        cores: By default those of this machine.
    """
    most = cores or os.cpu_count() or 1
    parts = [files[start : start + PART] for start in range(0, len(files), PART)]

    def decode(part: Sequence[bytes]) -> int:
        return len([centre_crop(decode_image(file), side) for file in part])

    threads = 1
    while True:
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            list(pool.map(decode, parts))
            begun, used, done = time.perf_counter(), time.process_time(), 0
            while not done or time.perf_counter() - begun < seconds:
                done += sum(pool.map(decode, parts))
            passed = time.perf_counter() - begun
            yield DecodeRate(threads, done / passed, done / (time.process_time() - used))
        if threads == most:
            return
        threads = min(2 * threads, most)
