"""Two ways to do the same work, timed in turns in one process.

The figure is the ratio of the process's CPU-seconds, so another machine's speed does not enter. Who calls
has shown first that both ways give the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

PAIRS = 7


@dataclass(frozen=True)
class Comparison:
    """Median CPU-seconds of both sides and the median of their ratios.

    Attributes:
        name: What was done.
        ours: CPU-seconds.
        theirs: CPU-seconds of the peer.
        peer: Who the peer is.
        ratio: theirs / ours, median over the pairs; above 1 ours is cheaper.
        checked: What was found equal, or is counted, before.
    """

    name: str
    ours: float
    theirs: float
    peer: str
    ratio: float
    checked: str


def compare(
    name: str,
    ours: Callable[[], object],
    peer: str,
    theirs: Callable[[], object],
    checked: str,
    pairs: int = PAIRS,
) -> Comparison:
    """Run both sides once unmeasured, then `pairs` times in turns."""
    ours(), theirs()
    times = [(_cpu_seconds(ours), _cpu_seconds(theirs)) for _ in range(pairs)]
    mine, other = (median(side) for side in zip(*times, strict=True))
    return Comparison(name, mine, other, peer, median(b / a for a, b in times), checked)


def _cpu_seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun
