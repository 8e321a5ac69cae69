"""The parquet tables of an artifact as shards of a job, and what a job's workers occupy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard, WorkerResources
from pipelines.dag.stage import Resources
from reptok.data.columns import count_rows


def table_shards(artifact: Artifact) -> list[Shard]:
    """Return one shard per parquet file of an artifact; the payload names the file.

    Raises:
        ValueError: The artifact has no parquet file.
    """
    names = artifact.files("*.parquet")
    if not names:
        raise ValueError(
            f"{artifact.kind} {artifact.fingerprint} has no parquet file; rerun the stage that made it"
        )

    def rows(name: str) -> int:
        with artifact.open(name) as file:
            return count_rows(file)

    with ThreadPoolExecutor(16) as readers:  # footers of remote files: latency, not work
        counts = list(readers.map(rows, names))
    return [
        Shard(index, name.removesuffix(".parquet"), count, {"file": name})
        for index, (name, count) in enumerate(zip(names, counts, strict=True))
    ]


def beside(shard: Shard, kind: str) -> str:
    """Return the table of another kind with the same rows: "captions-00003.parquet" for images-00003."""
    return f"{kind}-{shard.payload['file'].partition('-')[2]}"


def occupied(workers: WorkerResources) -> Resources:
    """Return what all workers of a stage occupy together."""
    return Resources(cpus=workers.workers * workers.cpus, gpus=workers.workers * workers.gpus)
