"""Progress of a long stage, as lines that stay readable when stages overlap or the output goes to a file."""

from __future__ import annotations

import time

INTERVAL_SECONDS = 5.0


class Progress:
    """Prints done, total, rate and time left, at most once in `INTERVAL_SECONDS`, and once at the end."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._begun = time.monotonic()
        self._first: float | None = None
        self._printed = self._begun

    def update(self, done: float, total: float, unit: str = "rows") -> None:
        """Tell the position; the rate counts from the first call, so resumed work does not flatter it."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._begun = done, now
        if now - self._printed < INTERVAL_SECONDS and done < total:
            return
        self._printed = now
        rate = (done - self._first) / max(now - self._begun, 1e-9)
        print(f"  {self.stage}: {describe(done, total, unit, rate)}", flush=True)


def describe(done: float, total: float, unit: str, rate: float) -> str:
    """One line: `1,200 of 2,000 rows (60 %), 85.0 rows/s, 9 s left`."""
    line = f"{done:,.0f} of {total:,.0f} {unit} ({100 * done / total if total else 100:.0f} %)"
    if rate > 0:
        line += f", {rate:,.1f} {unit}/s"
        if done < total:
            line += f", {duration((total - done) / rate)} left"
    return line


def duration(seconds: float) -> str:
    """A time a person reads: `9 s`, `3 min 20 s`, `5 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
