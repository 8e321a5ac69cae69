"""Stage filter_images: which of the pictures that came are passed on, and what was found about each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardWork, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.filters.clip_similarity import ClipSimilarity
from pipelines.filters.duplicates import Duplicates, duplicates_of
from pipelines.filters.filter import Filter
from pipelines.filters.judging import JudgeImages
from pipelines.filters.listed_hash import ListedHash
from pipelines.filters.twins import exclude_twins
from pipelines.filters.verdicts import REVIEW, verdict_table
from pipelines.stages.tables import occupied, table_shards
from reptok.data.columns import NAMED_KEYS, VERDICTS, read_table, write_table

READERS = 16


@dataclass(frozen=True, kw_only=True)
class FilterImagesConfig:
    """Which filters look; null leaves one out. Installed ones stand beside these, by their names.

    Attributes:
        listed_hash: Is it the picture that was listed?
        clip: Does it show what its text says?
        duplicates: Is it there already?
        workers: Actors and what each occupies.
    """

    listed_hash: ListedHash | None = None
    clip: ClipSimilarity | None = None
    duplicates: Duplicates | None = None
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def chosen(self, installed: Mapping[str, Filter]) -> dict[str, Filter]:
        """The filters that look, in their order.

        Installed ones see everything, so that nothing is shown to people that they would have quarantined.
        Twins come last: what another filter refuses is nobody's twin.
        """
        own = {"listed_hash": self.listed_hash, "clip": self.clip, "duplicates": self.duplicates}
        every = {**dict(sorted(installed.items())), **own}
        return {name: found for name, found in every.items() if found is not None}


@dataclass(frozen=True, kw_only=True)
class ChosenFilters:
    """The filters that look, by name, in their order."""

    filters: Mapping[str, Filter]
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        scores = [score for found in self.filters.values() for score in found.scores]
        if doubled := sorted(
            {score for score in scores if scores.count(score) > 1 or score in VERDICTS.names}
        ):
            raise ValueError(
                f"data.filter_images: the score {', '.join(doubled)} has a name that is taken; rename it"
            )


class FilterImages(ShardStage):
    """Judge every picture that was downloaded or imported; no pixel is written.

    verdicts-{shard}.parquet   `columns.VERDICTS` and the scores, a row per picture of images-{shard}.parquet
    excluded.parquet           kept pictures with an earlier twin in another table, where duplicates are
                               looked for
    review.parquet             what was quarantined, by key, if anything was
    """

    name, inputs, output, version = "filter_images", ("images",), "verdicts", 1
    by_shard = ("images",)
    modules = ("pipelines.filters.thresholds",)

    def __init__(self, config: ChosenFilters) -> None:
        super().__init__(config)
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each table of images."""
        images, config = inputs["images"], self.config
        filters = {name: found.placed(inputs) for name, found in config.filters.items()}
        return ShardWork(
            shards=table_shards(images), job=JudgeImages(images, filters), workers=config.workers
        )

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """What needs all verdicts: twins in other tables, what to review, pictures at thresholds."""
        from pipelines.filters.thresholds import threshold_page

        config, shards, found = self.config, work.shards, dict(stats)
        if (duplicates := duplicates_of(config.filters)) is not None:
            twins = exclude_twins(shards, duplicates.distance, out, config.workers)
            found["excluded"] = float(twins)
        if stats.get("quarantined"):
            write_review(shards, out)
        for name in config.filters:
            for score, threshold in config.filters[name].thresholds.items():
                if page := threshold_page(inputs["images"], shards, score, threshold, out):
                    out.log.picture(f"thresholds/{score}", page)
        return found


def write_review(shards: Sequence[Shard], out: Workspace) -> None:
    """Name what was quarantined, by key, for whoever is charged with looking at it."""
    names: dict[str, list[Any]] = {name: [] for name in NAMED_KEYS.names}
    columns = ["key", "reason", "detail"]

    def read(shard: Shard) -> Any:
        name = verdict_table(shard.payload["file"])
        with out.folder.open(name) as file:
            table = read_table(file, VERDICTS, name, [*columns, "quarantined"])
        return table.filter(table["quarantined"])

    with ThreadPoolExecutor(READERS) as readers:
        for shard, table in zip(shards, readers.map(read, shards), strict=True):
            for column in columns:
                names[column] += table.column(column).to_pylist()
            names["table"] += [shard.name] * table.num_rows
    with out.create(REVIEW) as target:
        write_table(target, names, NAMED_KEYS)  # type: ignore[arg-type]
