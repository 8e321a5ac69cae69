"""A wanted number of rows: the first shards, in order, that reach it make the artifact; the others do not.

Shards are done by many workers in no order, and some once more. What is done of them bounds where the number
is reached, from above: whatever the others will give, it is not less than nothing. When all shards before
the bound are done, it is where the number is reached, however they came to be done.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import SCRATCH, Workspace

if TYPE_CHECKING:
    from pipelines.dag.shards import Shard

END = f"{SCRATCH}/shards/end"


@dataclass(frozen=True)
class Wanted:
    """How many are enough.

    Attributes:
        number: of rows.
        stat: what counts them, in the stats of a shard.
    """

    number: int
    stat: str = "rows_out"


class Reach:
    """Where a wanted number is reached, as far as is known.

    Attributes:
        end: the place behind the last shard that is needed; None as long as those that are done are too few.
    """

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._needed: list[tuple[int, float]] = []  # (-place, rows) of what is done, the last place first
        self._sum = 0.0
        self.end: int | None = None

    def add(self, place: int, stats: dict[str, float]) -> None:
        """Count a shard that is done, once."""
        rows, needed = stats.get(self._wanted.stat, 0.0), self._needed
        heapq.heappush(needed, (-place, rows))
        self._sum += rows
        while needed and self._sum - needed[0][1] >= self._wanted.number:
            self._sum -= heapq.heappop(needed)[1]
        if self._sum >= self._wanted.number:
            self.end = 1 - needed[0][0]


def place_of(shard: Shard) -> int:
    """A shard's place among those that it, or what it is made from, belongs to."""
    return shard.index if shard.follows is None else shard.follows


def tell_end(out: Workspace, end: int | None) -> None:
    """Let workers know where a job ends, as far as that is known."""
    if end is not None:
        out.folder.write_bytes(END, str(end).encode())
    elif out.folder.exists(END):
        out.folder.remove(END)


def told_end(url: str) -> int | None:
    """Where the job of a workspace ends, as far as its driver knows."""
    folder = open_folder(url)
    try:
        return int(folder.read_bytes(END))
    except FileNotFoundError:
        return None
