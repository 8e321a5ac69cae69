"""Twins in different tables: found when all tables are judged, and named in a list.

Each table's kept pictures leave their hashes in a piece (`pipelines/urls/hashes.py`). Who has an earlier twin
follows from the hashes and the order of the keys alone, whoever looks, in whatever order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.workspace import SCRATCH, Workspace
from pipelines.filters.duplicates import EXACT, NEAR
from pipelines.filters.verdicts import EXCLUDED, verdict_table
from pipelines.urls.alike import alike
from pipelines.urls.bits import Bits
from pipelines.urls.dedup import Pile
from pipelines.urls.hashes import HASHED, write_piece
from reptok.data.columns import NAMED_KEYS, VERDICTS, count_rows, read_table, write_table

HASHES, SEARCH = f"{SCRATCH}/hashes", f"{SCRATCH}/twins"
HERE_ROWS = 1 << 22
"""Pictures of which this process finds the twins by itself sooner than workers would begin."""
READERS = 16


def write_hashes(out: Workspace, shard: Shard, rows: Sequence[int], hashes: Sequence[int]) -> None:
    """Leave the hashes of a table's kept pictures, which are so many rows of its verdicts; not published."""
    entries = np.empty(len(rows), HASHED)
    entries["row"], entries["hash"] = rows, np.array(hashes, np.uint64)
    write_piece(out, _piece(shard), entries)


def exclude_twins(
    shards: Sequence[Shard], distance: int | None, out: Workspace, workers: WorkerResources
) -> int:
    """Write `excluded.parquet`: the kept pictures of which an earlier one is the same, or nearly.

    Args:
        shards: of the tables of images, in order; all are judged.
        distance: as `Duplicates` has it.
        out: where the verdicts and hashes lie.
        workers: who looks, where there are many.

    Returns:
        How many they are.
    """
    tables = [verdict_table(shard.payload["file"]) for shard in shards]
    with ThreadPoolExecutor(READERS) as readers:
        rows = list(readers.map(partial(_rows, out), tables))
    begins = np.cumsum([0, *rows]).tolist()
    there = out.folder.sizes()
    found = [(_piece(shard), begin) for shard, begin in zip(shards, begins, strict=False)]
    found = [(piece, begin) for piece, begin in found if piece in there]  # a shard given up has none
    alive = Bits()
    alive.extend(np.ones(begins[-1], bool))
    pieces = [piece for piece, _ in found]
    known = hashlib.sha256("\n".join(pieces).encode()).hexdigest()[:16]  # a resumed run may have more
    place = Workspace(f"{out.url}/{SEARCH}/{known}", out.fingerprint, out.log)
    run = partial(map_shards, resources=workers, here=begins[-1] <= HERE_ROWS)
    pile, starts = Pile(out.url, pieces, HASHED), [begin for _, begin in found]
    same = alike("images", pile, starts, alive, distance or 0, place, run)
    same.repeated.add(same.near)
    named: dict[str, list[str]] = {"key": [], "table": []}
    for shard, table, begin, count in zip(shards, tables, begins, rows, strict=False):
        twins = np.flatnonzero(same.repeated.slice(begin, begin + count))
        if len(twins):
            with out.folder.open(table) as file:
                keys = read_table(file, VERDICTS, table, ["key"]).column("key").take(twins).to_pylist()
            named["key"] += keys
            named["table"] += [shard.name] * len(keys)
    reasons = [EXACT if distance is None else NEAR] * len(named["key"])
    with out.create(EXCLUDED) as target:
        return write_table(target, {**named, "reason": reasons}, NAMED_KEYS)  # type: ignore[arg-type]


def _piece(shard: Shard) -> str:
    return f"{HASHES}/{shard.index:05d}"


def _rows(out: Workspace, table: str) -> int:
    with out.folder.open(table) as file:
        return count_rows(file)
