"""How long requests took, as counts that add up over shards, however many rows these have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

EACH_DECADE = 20
"""Classes of a factor of ten: two neighbours differ by 12 %."""

Durations = Mapping[str, int]
"""How many took at most so many seconds (as text, for JSON), and more than the class below; 0 is a class."""


def counted(seconds: Iterable[float]) -> dict[str, int]:
    """Count durations by class."""
    found = Counter(_class_of(value) for value in seconds)
    return {f"{edge:.3g}": found[edge] for edge in sorted(found)}


def together(parts: Iterable[Durations]) -> dict[str, int]:
    """Add counts up, the shortest first."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return dict(sorted(total.items(), key=lambda item: float(item[0])))


def percentile(durations: Durations, percent: float) -> float:
    """The seconds within which this part of them was done, at most 12 % too long; 0 of none."""
    left = percent / 100 * sum(durations.values())
    for edge, count in sorted((float(edge), count) for edge, count in durations.items()):
        left -= count
        if left <= 0:
            return edge
    return 0.0


def _class_of(seconds: float) -> float:
    if seconds <= 0:
        return 0.0
    return float(10 ** (math.ceil(round(EACH_DECADE * math.log10(seconds), 6)) / EACH_DECADE))
