"""The success rate of a download while it runs, and a warning when it collapses."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

PRINT_SECONDS = 15.0
RECENT_ROWS = 2_000
COLLAPSED = 0.5
"""Part of the rate so far under which the rate of the last `RECENT_ROWS` rows counts as a collapse."""


class SuccessRate:
    """Follows the stats of shards as they are done.

    Args:
        say: prints a line.
        clock: seconds that only grow.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._said = clock()
        self._rows = self._images = 0.0
        self._recent: list[Mapping[str, float]] = []
        self._warned = False

    def add(self, stats: Mapping[str, float]) -> None:
        """Count one shard's stats; print the rate now and then, and warn once per collapse."""
        self._recent.append(stats)
        while sum(s["rows_in"] for s in self._recent[1:]) >= RECENT_ROWS:
            self._settle(self._recent.pop(0))
        rows = sum(s["rows_in"] for s in self._recent)
        images = sum(s["images_ok"] for s in self._recent)
        if self._rows and rows >= RECENT_ROWS:
            collapsed = images / rows < COLLAPSED * self._images / self._rows
            if collapsed and not self._warned:
                self._say(self._warning(images / rows))
            self._warned = collapsed
        now = self._clock()
        if now - self._said >= PRINT_SECONDS:
            self._said = now
            total = (self._images + images) / max(1.0, self._rows + rows)
            self._say(
                f"{total:.1%} of {self._rows + rows:,.0f} URLs gave an image, lately {images / rows:.1%}"
            )

    def _settle(self, stats: Mapping[str, float]) -> None:
        self._rows += stats["rows_in"]
        self._images += stats["images_ok"]

    def _warning(self, rate: float) -> str:
        reasons: Counter[str] = Counter()
        for stats in self._recent:
            reasons.update(
                {k.removeprefix("failed_"): v for k, v in stats.items() if k.startswith("failed_")}
            )
        named = ", ".join(f"{reason} {count:,.0f}" for reason, count in reasons.most_common(3))
        before = self._images / self._rows
        return (
            f"warning: only {rate:.1%} of the last URLs gave an image, {before:.1%} before ({named}). Is "
            "this machine's network or name server away? What failed can be asked again later, with "
            "data.download.reuse=<the fingerprint of these images>"
        )
