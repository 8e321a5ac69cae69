"""Windows of steps under torch.profiler: a trace, a table of operations and a snapshot of memory each.

The trace opens in https://ui.perfetto.dev or chrome://tracing; the others are text and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from reptok.training.config import ProfileConfig
from reptok.training.log import TrainLog
from reptok.training.memory import snapshot

ROWS = 40
"""Operations in the table."""
ALLOCATOR_EVENTS = 200_000


class Profiler:
    """Profiles the steps that the configuration names, of one process."""

    def __init__(self, config: ProfileConfig, folder: Path, device: torch.device, log: TrainLog):
        """Profile into a folder.

        Args:
            config: Which steps.
            folder: Where the files are written, one sub-folder per window.
            device: Where the training computes.
            log: Told of every finished file.
        """
        self._config, self._folder, self._device, self._log = config, folder, device, log
        self._running: profile | None = None
        self._around = ExitStack()
        self._ends = 0

    def at(self, step: int) -> None:
        """Say that a step begins, its wait for data included; begins and ends windows."""
        if self._running is not None and step >= self._ends:
            self.close()
        if self._running is None and self._config.begins(step):
            self._begin(step)

    def close(self) -> None:
        """End a window that is open, and write what it holds."""
        if self._running is None:
            return
        found, self._running = self._running, None
        recorded = self._allocator() if self._config.memory else None
        self._around.close()  # waits for the device
        place = self._folder / f"steps_{self._begun:07d}_{self._ends - 1:07d}"
        place.mkdir(parents=True, exist_ok=True)
        for path in self._write(found, place, recorded):
            self._log.file(path, f"{self._folder.name}/{place.name}")

    def _begin(self, step: int) -> None:
        self._begun, self._ends = step, step + self._config.steps
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
            if self._config.memory:
                torch.cuda.memory._record_memory_history(max_entries=ALLOCATOR_EVENTS)
                self._around.callback(torch.cuda.memory._record_memory_history, enabled=None)
        memory = self._config.memory
        self._running = self._around.enter_context(
            profile(activities=activities, record_shapes=True, profile_memory=memory, with_stack=memory)
        )

    def _allocator(self) -> object:
        """The segments and blocks of the GPU's allocator, and what it did in the window."""
        return torch.cuda.memory._snapshot() if self._device.type == "cuda" else None

    def _write(self, found: profile, place: Path, allocator: object) -> Iterator[Path]:
        trace = place / "trace.json.gz"
        found.export_chrome_trace(str(trace))
        yield trace
        by = "self_cuda_time_total" if self._device.type == "cuda" else "self_cpu_time_total"
        table = place / "operations.txt"
        table.write_text(found.key_averages().table(sort_by=by, row_limit=ROWS, max_name_column_width=80))
        yield table
        if self._config.memory:
            path = place / "memory.json"
            path.write_text(json.dumps(snapshot(found, self._device)))
            yield path
        if allocator is not None:
            path = place / "allocator.json"
            path.write_text(json.dumps(allocator))
            yield path
