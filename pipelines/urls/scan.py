"""Which rows of a URL list stay, and how many each rule drops alone and in order.

Files are judged row by row (`judge`); the hashes that this leaves are searched for equal ones, and what is
different for near ones (`dedup`), some parts of them at a time. All of it are shard jobs, so that workers on
any number of machines share the work and a killed run goes on where it was. The driver and each worker keep
one bit per row of the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.dag.shard_records import read_done
from pipelines.dag.shards import Shard
from pipelines.dag.workspace import Workspace
from pipelines.urls.alike import Run, alike, contents, within
from pipelines.urls.bits import Bits
from pipelines.urls.dedup import Pile
from pipelines.urls.hashes import HASHED
from pipelines.urls.judge import Dedup, Judge, kept_file, opted_file


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
        placed: likewise; those who opted out still have their place among the rows that stay, so that it is
            nobody else's when they go.
        drops: of each rule, in the order in which they apply.
    """

    files: list[tuple[str, int]]
    alive: Bits
    placed: Bits
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
    judged = within(place, "judged", "files")
    counted = run(files, judge, judged)
    done = read_done(files, judged)
    rows = [int(done[file.index]["stats"]["rows"]) for file in files]
    named = [(file.name, count) for file, count in zip(files, rows, strict=True)]
    found = Scan(named, _joined(judged, [kept_file(file.index) for file in files], rows), Bits(), [])
    for rule in judge.rules():
        alone, dropped = (int(counted[f"{kind}/{rule.name}"]) for kind in ("alone", "dropped"))
        found.drops.append(Drops(rule.name, rule.threshold, alone, dropped))
    pieces = [name for file in files for name in sorted(done[file.index]["files"])]
    begins = dict(zip([f"{file.index:05d}" for file in files], np.cumsum([0, *rows]).tolist(), strict=False))
    dedup = judge.dedup
    for kind, wanted in (("rows", bool(dedup.identity)), ("images", dedup.images)):
        if wanted:
            names = [name for name in pieces if name.startswith(f"{kind}-")]
            pile = Pile(judged.url, names, HASHED)
            _drop_repeats(found, kind, pile, [begins[n.split("-")[1]] for n in names], dedup, place, run)
    found.placed = Bits(found.alive.packed(), found.rows)
    if judge.opted_out:
        opted = _joined(judged, [opted_file(file.index) for file in files], rows)
        found.alive.subtract(opted)
        gone = found.placed.total() - found.alive.total()
        found.drops.append(Drops("opted_out", len(judge.opted_out), opted.total(), gone))
    return found


def _joined(judged: Workspace, names: Sequence[str], rows: Sequence[int]) -> Bits:
    """The bits of all files one after the other."""
    every = Bits()
    for packed, count in zip(contents(judged, names), rows, strict=True):
        every.extend(Bits(packed, count).slice(0, count))
    return every


def _drop_repeats(
    found: Scan,
    kind: str,
    pile: Pile,
    begins: Sequence[int],
    dedup: Dedup,
    place: Workspace,
    run: Run,
) -> None:
    """Judge the equal URLs, or the equal and near images."""
    distance = dedup.image_distance if kind == "images" else 0
    same = alike(kind, pile, begins, found.alive, distance, place, run)
    doomed = same.near
    if kind == "rows" or dedup.image:
        found.alive.subtract(same.repeated)
        name = dedup.name if kind == "rows" else "duplicate_image"
        found.drops.append(Drops(name, None, same.alone[0], same.repeated.total()))
    else:
        doomed.add(same.repeated)
    if distance:
        found.alive.subtract(doomed)
        found.drops.append(Drops("near_duplicate_image", distance, same.alone[1], doomed.total()))
