"""What a job over shards leaves on the storage: its plan, and a done record after each shard.

A killed job goes on where its records end.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from pipelines.dag.fingerprint import canonical_json
from pipelines.dag.storage import Folder, many
from pipelines.dag.wanted import place_of
from pipelines.dag.workspace import SCRATCH, Workspace

if TYPE_CHECKING:
    from pipelines.dag.shards import Shard

PLAN = f"{SCRATCH}/shards/plan.json"
DONE = f"{SCRATCH}/shards/done"
FOLDED = f"{SCRATCH}/shards/folded"
FOLD = 1000
"""Records that are read at once when a job is resumed: on an object store each one alone is a round trip."""
UNCOUNTED = -1
"""Rows of a shard whose input may not be there when the plan is made."""

Record = dict[str, Any]
"""A done record: name, rows, stats, files, and their summaries."""


def write_plan(shards: Sequence[Shard], out: Workspace) -> list[Shard]:
    """Record the plan, and return the recorded one, of which files may lie there; refuse another.

    The beginning of the recorded one is none other: what it is made from has ended early (see `wanted`).
    """
    from pipelines.dag.shards import Shard

    if len({shard.index for shard in shards}) != len(shards):
        raise ValueError("two shards have the same index")
    plan = canonical_json([asdict(shard) for shard in shards])
    if not out.folder.exists(PLAN):
        out.folder.write_bytes(PLAN, plan)
        return list(shards)
    recorded = out.folder.read_bytes(PLAN)
    if recorded == plan:
        return list(shards)
    begun, end = [Shard(**shard) for shard in json.loads(recorded)], max(map(place_of, shards), default=-1)
    if canonical_json([asdict(shard) for shard in begun if place_of(shard) <= end]) != plan:
        raise ValueError(
            f"{out.url} was begun with another plan of shards, although its fingerprint is the same: what "
            "changes the plan must be a significant config field. Remove that folder to begin anew."
        )
    return begun


def read_done(shards: Sequence[Shard], out: Workspace) -> dict[int, Record]:
    """Done records by shard index; those whose files are not all there at their size do not count, and go.

    Folded records are read a thousand at a time; what is left is folded for the next time. A shard that is to
    be done again is in no fold afterwards: its next record counts.
    """
    sizes = out.folder.sizes()
    folds = [name for name in sizes if name.startswith(f"{FOLDED}/")]
    folded: dict[int, Record] = {}
    for records in many(lambda name: json.loads(out.folder.read_bytes(name)), folds):
        folded |= {int(index): record for index, record in records.items()}
    there = [shard.index for shard in shards if record_name(shard.index) in sizes]
    single = [index for index in there if index not in folded]
    read = dict(zip(single, many(partial(_read, out.folder), single), strict=True))
    done = {}
    for index in there:
        record = folded[index] if index in folded else read[index]
        files = record.get("files")  # a claim has none
        if files is not None and all(sizes.get(name) == file["size"] for name, file in files.items()):
            done[index] = record
        elif files is not None:  # or the one that does the shard again would find it done
            out.folder.remove(record_name(index))
    if folded.keys() - done.keys():
        out.folder.remove(FOLDED)
        fold(done, out)
    else:
        fold({index: done[index] for index in read if index in done}, out)
    return done


def fold(records: Mapping[int, Record], out: Workspace) -> None:
    """Keep records together, in thousands, beside the single ones; the rest stays single."""
    indices = sorted(records)
    for start in range(0, len(indices) - FOLD + 1, FOLD):
        part = {str(index): records[index] for index in indices[start : start + FOLD]}
        out.folder.write_bytes(f"{FOLDED}/{uuid.uuid4().hex}.json", canonical_json(part))


def done_record(index: int, folder: Folder) -> Record | None:
    """The record of one shard, if it is done and its files are there."""
    try:
        record: Record = json.loads(folder.read_bytes(record_name(index)))
    except FileNotFoundError:
        return None
    whole = all(folder.size(file) == entry["size"] for file, entry in record.get("files", {}).items())
    return record if whole and "files" in record else None


def _read(folder: Folder, index: int) -> Record:
    record: Record = json.loads(folder.read_bytes(record_name(index)))
    return record


def checked_stats(shard: Shard, stats: Mapping[str, float]) -> dict[str, float]:
    """The stats of a shard, proven to account for every row.

    Raises:
        ValueError: a row is missing or doubled.
    """
    counted = {key: float(value) for key, value in stats.items()}
    absent = {"rows_in", "rows_out"} - counted.keys()
    if absent:
        raise ValueError(f"the job returned no {' and no '.join(sorted(absent))}")
    if counted["rows_in"] != shard.rows:
        raise ValueError(f"the job read {counted['rows_in']:.0f} rows where the plan says {shard.rows}")
    dropped = sum(value for key, value in counted.items() if key.startswith("dropped_"))
    if counted["rows_in"] != counted["rows_out"] + dropped:
        raise ValueError(
            f"{counted['rows_in']:.0f} rows in are not {counted['rows_out']:.0f} rows out and "
            f"{dropped:.0f} dropped"
        )
    return counted


def record_name(index: int) -> str:
    """Name of a shard's done record."""
    return f"{DONE}/{index:06d}.json"
