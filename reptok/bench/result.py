"""What one row of the table says, whether it reaches its goal, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reptok.bench.clock import Timing

HEADER = (
    "", "what", "batch", "ms/step", "p99", "images/s", "TFLOP/s", "MFU", "of peak", "GB", "reserved",
    "goal on an H100",
)  # fmt: skip
WIDTHS = (4, 52, 5, 8, 8, 8, 8, 6, 7, 6, 8, 0)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a row is to reach on an H100.

    Attributes:
        field: Of `Result`.
        bound: The value.
        at_least: Whether more is better.
        text: How it is written.
    """

    field: str
    bound: float
    at_least: bool
    text: str

    def met(self, result: Result) -> bool:
        """Whether a row reaches it."""
        found = float(getattr(result, self.field))
        return found >= self.bound if self.at_least else found <= self.bound


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row.

    Attributes:
        name: "G1" ..., or a short word.
        what: What was done.
        batch: Samples of a step on one device.
        seconds: Of a step, the median.
        slow_seconds: What 99 of 100 steps stay below.
        per_second: Samples, over all devices.
        flops_per_second: Arithmetic that the networks need, on one device.
        ceiling: FLOP/s of a large product, measured in the same run; 0 where that is no measure.
        peak: FLOP/s that the maker promises, 0 where it is not known.
        allocated_bytes: Most that tensors held.
        reserved_bytes: Most that the allocator held.
        idle: Share of the time without work, where that is what was measured.
        goal: What is to be reached.
        note: Said instead of figures, or behind them.
    """

    name: str
    what: str
    batch: int = 0
    seconds: float = 0.0
    slow_seconds: float = 0.0
    per_second: float = 0.0
    flops_per_second: float = 0.0
    ceiling: float = 0.0
    peak: float = 0.0
    allocated_bytes: int = 0
    reserved_bytes: int = 0
    idle: float = 0.0
    goal: Goal | None = None
    note: str = ""

    @classmethod
    def of(cls, name: str, what: str, batch: int, timing: Timing, flops: float = 0.0, **more: Any) -> Result:
        """A timed step of `batch` samples that cost `flops` each."""
        rate = batch / timing.seconds
        return cls(
            name=name, what=what, batch=batch, seconds=timing.seconds, slow_seconds=timing.slow_seconds,
            per_second=rate, flops_per_second=rate * flops, allocated_bytes=timing.peak_bytes,
            reserved_bytes=timing.reserved_bytes, **more,
        )  # fmt: skip

    def line(self) -> str:
        """The row of the table."""
        goal = self.goal.text if self.goal else ""
        if not self.seconds:
            return f"{self.name:4}  {self.what:52}  {self.note}{'  goal ' + goal if goal else ''}"
        rate = self.flops_per_second
        cells = (
            self.name,
            self.what,
            f"{self.batch}",
            f"{1e3 * self.seconds:.2f}",
            f"{1e3 * self.slow_seconds:.2f}",
            f"{self.per_second:,.0f}",
            f"{rate / 1e12:,.3g}" if rate else "",
            f"{rate / self.ceiling:.1%}" if rate and self.ceiling else "",
            f"{rate / self.peak:.1%}" if rate and self.peak else "",
            f"{self.allocated_bytes / 1e9:.1f}",
            f"{self.reserved_bytes / 1e9:.1f}" if self.reserved_bytes else "",
            " ".join(part for part in (goal, self.note) if part),
        )
        return table_line(cells)

    def shortfall(self) -> str | None:
        """What is missing to the goal; None where it is reached or there is none."""
        if self.goal is None or self.goal.met(self):
            return None
        return f"{self.name} {self.what}: {float(getattr(self, self.goal.field)):,.4g}, goal {self.goal.text}"


def table_line(cells: tuple[str, ...]) -> str:
    """Pad cells to the table's columns."""
    padded = [
        cell.ljust(width) if number < 2 else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    ]
    return "  ".join(padded).rstrip()


class Kept:
    """The results of earlier runs on the same machine, in a JSON file that `docs/` can show."""

    def __init__(self, path: Path | None, machine: Mapping[str, Any]):
        """Go on with the file at `path`, unless it is of another machine, library or size."""
        self._path, self._machine = path, dict(machine)
        self._parts: dict[str, list[dict[str, Any]]] = {}
        if path is not None and path.exists():
            before = json.loads(path.read_text())
            if before["machine"] == self._machine:
                self._parts = before["parts"]

    def get(self, part: str) -> list[Result] | None:
        """The rows of a part that was measured before."""
        if part not in self._parts:
            return None
        return [
            Result(**{**row, "goal": Goal(**row["goal"]) if row["goal"] else None})
            for row in self._parts[part]
        ]

    def put(self, part: str, results: list[Result]) -> None:
        """Keep the rows of a part."""
        self._parts[part] = [asdict(result) for result in results]
        if self._path is not None:
            text = json.dumps({"machine": self._machine, "parts": self._parts}, indent=1)
            self._path.write_text(text + "\n")
