"""Time and memory of a repeated step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch

WARMUP_STEPS, FEWEST_WARMUP_STEPS = 5, 2
FEWEST, MOST = 3, 400


@dataclass(frozen=True)
class Timing:
    """Of one step.

    Attributes:
        seconds: Median duration.
        steps: How many were timed.
        peak_bytes: Most memory that tensors held on a GPU at any time of them; on a CPU the most memory that
            the process ever held.
        slow_seconds: The duration that 99 of 100 stay below; far from the median something stalls at times.
        reserved_bytes: What the allocator had taken from the GPU by then; the rest of it is fragments.
    """

    seconds: float
    steps: int
    peak_bytes: int
    slow_seconds: float = 0.0
    reserved_bytes: int = 0


def time_steps(
    step: Callable[[], object],
    device: torch.device,
    *,
    seconds: float = 10.0,
    warmup: int = WARMUP_STEPS,
    agree: Callable[[float], float] = lambda once: once,
) -> Timing:
    """Repeat a step for about `seconds`, after some steps that compile kernels and fill caches.

    Args:
        step: Queues one step's work on the device; need not wait for it.
        device: Where it works.
        seconds: Duration of the timed steps together; at least three are timed.
        warmup: Steps before; two are enough where they take long.
        agree: Makes one number of what a step took in each of several processes, which take as many steps.
    """
    begun = time.perf_counter()
    for number in range(warmup):
        if number < FEWEST_WARMUP_STEPS or agree(time.perf_counter() - begun) < seconds:
            step()
    once = agree(_on_host([step], device)[0])
    steps = max(FEWEST, min(MOST, int(seconds / once)))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        durations = _on_gpu([step] * steps, device)
    else:
        durations = _on_host([step] * steps, device)
    slow = sorted(durations)[min(steps - 1, int(0.99 * steps))]
    reserved = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0
    return Timing(median(durations), steps, peak_bytes(device), slow, reserved)


def time_span(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds from the device's first operation of `work` to the end of its last."""
    return (_on_gpu if device.type == "cuda" else _on_host)([work], device)[0]


def peak_bytes(device: torch.device) -> int:
    """Return the peak of `Timing.peak_bytes` so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _on_gpu(works: list[Callable[[], object]], device: torch.device) -> list[float]:
    """Durations between events on the GPU's own time line: no waiting in between."""
    with torch.cuda.device(device):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(len(works) + 1)]
        torch.cuda.synchronize()
        events[0].record()
        for work, event in zip(works, events[1:], strict=True):
            work()
            event.record()
        torch.cuda.synchronize()
    return [begin.elapsed_time(end) / 1e3 for begin, end in pairwise(events)]  # it gives milliseconds


def _on_host(works: list[Callable[[], object]], device: torch.device) -> list[float]:
    durations = []
    for work in works:
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elif device.type == "mps":
            torch.mps.synchronize()
        durations.append(time.perf_counter() - begun)
    return durations
