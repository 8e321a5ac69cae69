"""How long the device computed, without anybody waiting for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Times spans of a device's work; what is not over yet is read later.

    Attributes:
        seconds: Of the latest step whose spans were over when `turn` was last called.
    """

    def __init__(self, device: torch.device):
        self.seconds = 0.0
        self._on_gpu = device.type == "cuda"
        self._elapsed = 0.0
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._steps: deque[list[tuple[torch.cuda.Event, torch.cuda.Event]]] = deque()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Surround what is timed; several times in a step, where its batch is divided."""
        if self._on_gpu:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._spans.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self._elapsed += time.perf_counter() - began

    def turn(self) -> None:
        """End a step."""
        if not self._on_gpu:
            self.seconds, self._elapsed = self._elapsed, 0.0
            return
        self._steps.append(self._spans)
        self._spans = []
        while self._steps and all(end.query() for _, end in self._steps[0]):
            self.seconds = sum(begin.elapsed_time(end) for begin, end in self._steps.popleft()) / 1e3
