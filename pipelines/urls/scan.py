"""Which rows of a URL list stay, and how many each rule drops alone and in order.

Files are judged row by row (`judge`); the hashes that this leaves are searched for equal ones, and what is
different for near ones (`dedup`), some parts of them at a time. All of it are shard jobs, so that workers on
any number of machines share the work and a killed run goes on where it was. The driver and each worker keep
one bit per row of the list.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.dag.shard_records import read_done
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.tracking import StageLog
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.dedup import ROW, FindNear, FindRepeats, Pile, SortFirsts
from pipelines.urls.duplicates import masks
from pipelines.urls.hashes import FIRSTS, HASHED
from pipelines.urls.judge import Dedup, Judge, kept_file

READERS = 16


class Run(Protocol):
    """Does the shards of a job, like `map_shards`."""

    def __call__(self, shards: Sequence[Shard], job: ShardJob, out: Workspace, /) -> Mapping[str, float]: ...


@dataclass
class Drops:
    """What one rule drops: as the only rule, and of the rows that the rules before it left."""

    rule: str
    threshold: Any
    alone: int = 0
    dropped: int = 0


@dataclass
class Scan:
    """What was found.

    Attributes:
        files: name and rows of each file, in order.
        alive: a bit for each row of the list: whether it stays.
        drops: of each rule, in the order in which they apply.
    """

    files: list[tuple[str, int]]
    alive: Bits
    drops: list[Drops]

    @property
    def rows(self) -> int:
        """Rows of the list."""
        return sum(rows for _, rows in self.files)


def scan(files: Sequence[Shard], judge: Judge, place: Workspace, run: Run) -> Scan:
    """Judge a list.

    Args:
        files: one shard for each, in order.
        judge: the rules.
        place: an unpublished folder that all workers see, for hashes and records; it resumes from what lies
            there.
        run: does the jobs.
    """
    judged = _within(place, "judged", "files")
    counted = run(files, judge, judged)
    done = read_done(files, judged)
    rows = [int(done[file.index]["stats"]["rows"]) for file in files]
    found = Scan([(file.name, count) for file, count in zip(files, rows, strict=True)], Bits(), [])
    for kept, count in zip(_contents(judged, [kept_file(f.index) for f in files]), rows, strict=True):
        found.alive.extend(Bits(kept, count).slice(0, count))
    for rule in judge.rules():
        alone, dropped = (int(counted[f"{kind}/{rule.name}"]) for kind in ("alone", "dropped"))
        found.drops.append(Drops(rule.name, rule.threshold, alone, dropped))
    pieces = [name for file in files for name in sorted(done[file.index]["files"])]
    begins = dict(zip([f"{file.index:05d}" for file in files], np.cumsum([0, *rows]).tolist(), strict=False))
    dedup = judge.dedup
    for kind, wanted in (("urls", dedup.url), ("images", dedup.images)):
        if wanted:
            names = [name for name in pieces if name.startswith(f"{kind}-")]
            _drop_repeats(
                found, kind, judged, names, [begins[n.split("-")[1]] for n in names], dedup, place, run
            )
    return found


def _drop_repeats(
    found: Scan,
    kind: str,
    judged: Workspace,
    names: Sequence[str],
    begins: Sequence[int],
    dedup: Dedup,
    place: Workspace,
    run: Run,
) -> None:
    """Judge the equal URLs, or the equal and near images."""
    alive = f"alive-{kind}"
    place.folder.write_bytes(alive, found.alive.packed())
    job = FindRepeats(
        pile=Pile(judged.url, names, HASHED),
        begins=begins,
        alive=(place.url, alive),
        rows=found.rows,
        firsts=kind == "images" and dedup.image_distance > 0,
    )
    repeats = _within(place, f"repeated-{kind}", "parts")
    shards = job.shards()
    stats = run(shards, job, repeats)
    alone, dropped = int(stats["repeated"]), int(stats["found"])
    doomed = Bits.zeros(found.rows)
    for rows in _rows(repeats, "rows", shards):
        doomed.set(rows)
    if kind == "urls" or dedup.image:
        found.alive.subtract(doomed)
        found.drops.append(
            Drops("duplicate_url" if kind == "urls" else "duplicate_image", None, alone, dropped)
        )
        doomed = Bits.zeros(found.rows)
    if job.firsts:
        apart = Bits.zeros(found.rows)
        firsts = Pile(repeats.url, _names("firsts", shards), FIRSTS)
        for every, left in _near(firsts, dedup.image_distance, place, run):
            apart.set(every)
            doomed.set(left)
        found.alive.subtract(doomed)
        drops = Drops("near_duplicate_image", dedup.image_distance, alone + apart.total(), doomed.total())
        found.drops.append(drops)


def _near(firsts: Pile, distance: int, place: Workspace, run: Run) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows near an earlier one: all rows counting, and those that are left; some come repeatedly."""
    every = [int(mask) for mask in masks(distance)]
    if len(firsts.open().groups()) == 1:
        find = FindNear(pile=firsts, masks=every, distance=distance)
        yield _compared(find, _within(place, "near", "parts"), run)
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
        ordered, compared = (_within(place, f"{name}/{part}", "parts") for part in ("sorted", "compared"))
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
    for content in _contents(place, _names(kind, shards)):
        yield np.frombuffer(content, ROW)


def _contents(place: Workspace, names: Sequence[str]) -> Iterator[bytes]:
    """Files one after the other, some of them read ahead."""
    with ThreadPoolExecutor(READERS) as readers:
        for start in range(0, len(names), READERS):
            yield from readers.map(place.read_bytes, names[start : start + READERS])


def _within(place: Workspace, name: str, unit: str) -> Workspace:
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
