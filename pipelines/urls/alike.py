"""Rows of a long list with equal hashes, and those whose hashes are nearly equal.

All of it are shard jobs over piles of hashes (`dedup`), so that workers on any number of machines share the
work, and a killed search goes on where it was. The driver and each worker keep one bit per row of the list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.stage_log import StageLog
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.dedup import ROW, FindNear, FindRepeats, Pile, SortFirsts
from pipelines.urls.duplicates import masks
from pipelines.urls.hashes import FIRSTS

READERS = 16


class Run(Protocol):
    """Does the shards of a job, like `map_shards`."""

    def __call__(self, shards: Sequence[Shard], job: ShardJob, out: Workspace, /) -> Mapping[str, float]: ...


@dataclass(frozen=True)
class Alike:
    """What was found among the rows that are left.

    Attributes:
        repeated: a bit for each row of the list: whether an earlier one has its hash.
        near: of the others, whether an earlier one, be it such a row or not, has nearly its hash.
        alone: how many rows have an earlier one with their hash, and with nearly theirs, those that are not
            left included.
    """

    repeated: Bits
    near: Bits
    alone: tuple[int, int]


def alike(
    kind: str, pile: Pile, begins: Sequence[int], alive: Bits, distance: int, place: Workspace, run: Run
) -> Alike:
    """Find them.

    Args:
        kind: names the search within its place.
        pile: the hashes of all rows that count.
        begins: of each piece, the row of the list with which its file begins.
        alive: a bit for each row of the list: whether it is left.
        distance: bits in which hashes that are nearly equal may differ; 0 looks for equal ones alone.
        place: an unpublished folder that all workers see; it resumes from what lies there.
        run: does the jobs.
    """
    bits = f"alive-{kind}"
    place.folder.write_bytes(bits, alive.packed())
    job = FindRepeats(pile=pile, begins=begins, alive=(place.url, bits), rows=len(alive), firsts=distance > 0)
    repeats = within(place, f"repeated-{kind}", "parts")
    shards = job.shards()
    stats = run(shards, job, repeats)
    repeated, near, apart = (Bits.zeros(len(alive)) for _ in range(3))
    for rows in _rows(repeats, "rows", shards):
        repeated.set(rows)
    if distance:
        firsts = Pile(repeats.url, _names("firsts", shards), FIRSTS)
        for every, left in _near(firsts, distance, place, run):
            apart.set(every)
            near.set(left)
    alone = int(stats["repeated"])
    return Alike(repeated, near, (alone, alone + apart.total()))


def _near(firsts: Pile, distance: int, place: Workspace, run: Run) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows near an earlier one: all rows counting, and those that are left; some come repeatedly."""
    every = [int(mask) for mask in masks(distance)]
    if len(firsts.open().groups()) == 1:
        find = FindNear(pile=firsts, masks=every, distance=distance)
        yield _compared(find, within(place, "near", "parts"), run)
        return
    for number, mask in enumerate(every):
        yield _in_order_of(mask, firsts, distance, place, f"near-{number:02d}", run)


def _in_order_of(
    mask: int, firsts: Pile, distance: int, place: Workspace, name: str, run: Run
) -> tuple[np.ndarray, np.ndarray]:
    """What one mask shows, of more hashes than memory holds.

    What it sorts is removed when that is known, so that the storage holds one order at a time.
    """
    results = [f"{name}-any", f"{name}-left"]
    if not all(place.folder.exists(result) for result in results):
        sort = SortFirsts(pile=firsts, mask=mask)
        ordered, compared = (within(place, f"{name}/{part}", "parts") for part in ("sorted", "compared"))
        shards = sort.shards()
        run(shards, sort, ordered)
        pile = Pile(ordered.url, _names("firsts", shards), FIRSTS)
        rows = _compared(FindNear(pile=pile, masks=[mask], distance=distance), compared, run)
        for result, found in zip(results, rows, strict=True):
            place.folder.write_bytes(result, found.tobytes())
        place.folder.remove(name)
    every, left = (np.frombuffer(place.folder.read_bytes(result), ROW) for result in results)
    return every, left


def _compared(find: FindNear, place: Workspace, run: Run) -> tuple[np.ndarray, np.ndarray]:
    shards = find.shards()
    run(shards, find, place)
    every, left = (
        np.concatenate([np.empty(0, ROW), *_rows(place, kind, shards)]) for kind in ("any", "left")
    )
    return every, left


def _names(kind: str, shards: Sequence[Shard]) -> list[str]:
    return [f"{kind}-{shard.index:05d}" for shard in shards]


def _rows(place: Workspace, kind: str, shards: Sequence[Shard]) -> Iterator[np.ndarray]:
    for content in contents(place, _names(kind, shards)):
        yield np.frombuffer(content, ROW)


def contents(place: Workspace, names: Sequence[str]) -> Iterator[bytes]:
    """Files one after the other, some of them read ahead."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(names), READERS):
            yield from readers.map(place.read_bytes, names[start : start + READERS])


def within(place: Workspace, name: str, unit: str) -> Workspace:
    """A folder of its own for one job, whose progress is counted in its own unit."""
    return Workspace(place.folder.url_of(name), place.fingerprint, Uncounted(place.log, unit))


class Uncounted(StageLog):
    """Passes on how far a job is, in its own unit, and counts no rows: the stage's are counted once."""

    def __init__(self, log: StageLog, unit: str) -> None:
        super().__init__(log.stage)
        self._log, self._unit = log, unit

    def progress(self, done: float, total: float, unit: str = "") -> None:
        if total > 1:
            self._log.progress(done, total, self._unit)

    def rows(self, stats: Mapping[str, float], size: float = 0, reasons: Collection[str] = ()) -> None:
        """Nothing."""
