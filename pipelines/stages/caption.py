"""Stage caption: a caption for every image that was downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.ops.caption import CaptionerConfig, build_captioner
from pipelines.ops.op import Op
from pipelines.stages.dataset import drop_reason
from pipelines.stages.tables import occupied, table_shards
from reptok.data.columns import CAPTIONS, IMAGES, SUCCESS, iterate_rows, write_table

ROWS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Captioner and workers."""

    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True)
class CaptionJob(ShardJob):
    """Caption the successful rows of one table of images."""

    images: Artifact
    captioner: Op

    def setup(self) -> None:
        """Load the captioner."""
        self.captioner.setup()

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `captions-{i}.parquet` beside `images-{i}.parquet`."""
        stats = {"rows_in": 0.0, "rows_out": 0.0}
        done: dict[str, list[Any]] = {name: [] for name in CAPTIONS.names}
        name = shard.payload["file"]
        columns = ["key", "status", "reason", *self.captioner.reads]
        with self.images.open(name) as file:
            batch: list[dict[str, Any]] = []
            for row in iterate_rows(file, IMAGES, name, columns):
                stats["rows_in"] += 1
                if row["status"] == SUCCESS:
                    batch.append(row)
                else:
                    reason = drop_reason(row["reason"], "failed")
                    stats[reason] = stats.get(reason, 0.0) + 1
                if len(batch) == ROWS_PER_BATCH:
                    self._caption(batch, done)
                    batch = []
            if batch:
                self._caption(batch, done)
        stats["rows_out"] = float(len(done["key"]))
        for fallback in filter(None, done["reason"]):
            stats[f"fallback_{fallback}"] = stats.get(f"fallback_{fallback}", 0.0) + 1
        with out.create(name.replace("images-", "captions-", 1)) as table:
            target: Any = table
            write_table(target, done, CAPTIONS)
        return stats

    def _caption(self, rows: list[dict[str, Any]], done: dict[str, list[Any]]) -> None:
        batch = self.captioner({name: [row[name] for row in rows] for name in ("key", *self.captioner.reads)})
        for name, values in done.items():
            values.extend(batch[name])


class Caption(Stage):
    """Give every downloaded image a caption; failed rows are counted by their reason."""

    name, inputs, output, version = "caption", ("images",), "captions", 1

    def __init__(self, config: CaptionConfig):
        super().__init__(config)
        self.captioner = build_captioner(config.captioner)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        images = inputs["images"]
        return map_shards(table_shards(images), CaptionJob(images, self.captioner), out, self.config.workers)
