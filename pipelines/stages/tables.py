"""The parquet tables of an artifact as shards of a job, and what a job's workers occupy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipelines.dag.artifact import Artifact
from pipelines.dag.coming import Coming
from pipelines.dag.shard_records import UNCOUNTED
from pipelines.dag.shards import Shard, WorkerResources
from pipelines.dag.stage import Resources
from pipelines.dag.wanted import place_of
from reptok.data.columns import count_rows
from reptok.data.index import SPLITS

_NAME = re.compile(rf"\w+-(?P<shard>(?P<split>{'|'.join(SPLITS)})-\d{{5,}})\.parquet")


def table_shards(artifact: Artifact) -> list[Shard]:
    """Return one shard per parquet file of an artifact, be it there already or coming; the payload names it.

    The plan does not count the rows: `table_rows` does, where a shard is worked on.

    Raises:
        ValueError: The artifact has no parquet file.
    """
    names = artifact.files("*.parquet")
    if not names:
        raise ValueError(
            f"{artifact.kind} {artifact.fingerprint} has no parquet file; rerun the stage that made it"
        )
    return [
        Shard(index, name.removesuffix(".parquet"), UNCOUNTED, {"file": name})
        for index, name in enumerate(in_order(names))
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Return names of shards in the order in which they are worked on: the few for validation first."""
    return sorted(names, key=lambda name: (not re.search(r"\bval-\d", name), len(name), name))


def dataset_shard(table: str) -> tuple[str, str]:
    """Return the split that a table's name tells, and the shard of a dataset with its samples.

    Raises:
        ValueError: It tells none.
    """
    found = _NAME.fullmatch(table)
    if found is None:
        raise ValueError(
            f"{table} does not name its split; a table is called kind-split-number.parquet, and a "
            f"split is one of {', '.join(SPLITS)}"
        )
    return found["split"], found["shard"]


def table_rows(artifact: Artifact, shard: Shard) -> int:
    """Return the number of rows of a shard's table, as who has just written it says, or else its footer."""
    name, index = shard.payload["file"], place_of(shard)
    if isinstance(artifact, Coming) and (record := artifact.record(index)) and name in record["files"]:
        return int(record["stats"]["rows_out"])
    with artifact.open(name) as file:
        return count_rows(file)


def beside(shard: Shard, kind: str) -> str:
    """Return the table of another kind with the same rows: "captions-val-00003.parquet" for its images."""
    return f"{kind}-{shard.payload['file'].partition('-')[2]}"


def occupied(workers: WorkerResources) -> Resources:
    """Return what all workers of a stage occupy together; one of them, of as many as there is room for."""
    count = workers.workers or 1
    return Resources(cpus=count * workers.cpus, gpus=count * workers.gpus, elastic=not workers.workers)
