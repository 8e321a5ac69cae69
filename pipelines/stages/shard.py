"""Stage shard: images and captions become a WebDataset whose shards are each of one split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pipelines.crawl.reasons import CLASSES
from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Made
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.rows import drop_reason
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.filters.judging import REASONS
from pipelines.filters.verdicts import EXCLUDED, Verdicts
from pipelines.stages.dataset import (
    CLASS_NAMES,
    IMAGE_SIZE,
    DatasetShardWriter,
    dataset_files,
    write_excluded,
    write_index,
)
from pipelines.stages.tables import beside, dataset_shard, occupied, table_rows, table_shards
from reptok.bounds import Pixels
from reptok.data.columns import CAPTIONS, IMAGES, SUCCESS, iterate_rows, read_table
from reptok.data.shards import Sample

FACTS = (
    "url", "label", "subject", "width", "height", "original_width", "original_height", "sha256", "phash",
)  # fmt: skip
"""Columns of `images` that go into a sample's JSON, where they are known."""


ORIGIN = {
    "source": "caption_source",
    "reason": "caption_reason",
    "alt_text": "alt_text",
    "generated": "captions",
    "model": "caption_model",
    "revision": "caption_revision",
    "decoding": "caption_decoding",
}
"""Columns of `captions` and their names in a sample's JSON, where they are known."""


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How the dataset is written.

    Attributes:
        image_size: Side of the images, as `download` made them.
        workers: Actors and what each occupies.
    """

    image_size: Pixels = 256
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True)
class ShardTables(ShardJob):
    """Join one table of images with its captions and write its samples."""

    reasons: ClassVar[frozenset[str]] = CLASSES | REASONS | {"no_caption", "failed"}

    images: Artifact
    captions: Artifact
    config: ShardConfig
    facts: tuple[str, ...] = FACTS
    verdicts: Artifact | None = None

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` and `.parquet`, of the table's split and number."""
        captions = self._captions(beside(shard, "captions"))
        verdicts = Verdicts(self.verdicts, shard) if self.verdicts else None
        stats = {"rows_in": 0.0, "rows_out": 0.0}

        def drop(reason: str) -> None:
            stats[reason] = stats.get(reason, 0.0) + 1

        name = shard.payload["file"]
        split, made = dataset_shard(name)
        columns = ["key", "status", "reason", "jpg", *self.facts]
        scored = verdicts.scores if verdicts else ()
        with self.images.open_whole(name) as file, DatasetShardWriter(out, made, scored) as writer:
            for row in iterate_rows(file, IMAGES, name, columns):
                stats["rows_in"] += 1
                if row["status"] != SUCCESS:
                    drop(drop_reason(row["reason"], "failed"))
                elif verdicts and (refusal := verdicts.refusal(row["key"])):
                    drop(f"dropped_{refusal}")
                elif row["key"] not in captions:
                    drop("dropped_no_caption")
                else:
                    self._check_size(row, name)
                    facts = {fact: row[fact] for fact in self.facts if row[fact] is not None}
                    caption, origin = captions[row["key"]]
                    info = {"key": row["key"], **origin, **facts}
                    if verdicts:
                        info["scores"] = verdicts.scores_of(row["key"])
                    writer.add(Sample(row["key"], row["jpg"], caption, info))
                    stats["rows_out"] += 1
        return {**stats, f"rows_{split}": stats["rows_out"]}

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write a shard without samples."""
        with DatasetShardWriter(out, dataset_shard(shard.payload["file"])[1]):
            pass

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """The tables of all inputs."""
        inputs = [(self.images, shard.payload["file"]), (self.captions, beside(shard, "captions"))]
        if self.verdicts:
            inputs.append((self.verdicts, beside(shard, "verdicts")))
        return inputs

    def rows_of(self, shard: Shard) -> int:
        """Rows of the table of images."""
        return table_rows(self.images, shard)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The shard and its table."""
        return dataset_files(dataset_shard(shard.payload["file"])[1])

    def _captions(self, name: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """By key the caption, and what a sample's JSON says about its origin."""
        with self.captions.open(name) as file:
            rows = read_table(file, CAPTIONS, name, CAPTIONS.names).to_pylist()
        return {row["key"]: (row["caption"], caption_origin(row)) for row in rows}

    def _check_size(self, row: Mapping[str, Any], name: str) -> None:
        size = self.config.image_size
        if (row["width"], row["height"]) != (size, size):
            raise ValueError(
                f"{name}, key {row['key']}: the image is {row['width']} x {row['height']}, but "
                f"shard.image_size is {size}; give download the same image_size and mode center_crop"
            )


def caption_origin(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of `captions` says about where its caption comes from, for a sample's JSON."""
    known = {name: row[column] for column, name in ORIGIN.items() if row[column]}
    if row["decoding"]:
        known["caption_decoding"] = json.loads(row["decoding"])
    return known


class ShardDataset(ShardStage):
    """Write the successful images with their captions as tars, drops counted by reason, index last."""

    name, output, version = "shard", "dataset", 3

    def __init__(self, config: ShardConfig, judged: bool = False):
        """Join `images` and `captions`; `judged` leaves out what the artifact `verdicts` does not pass on."""
        self.inputs = self.by_shard = ("images", "captions", *(("verdicts",) if judged else ()))
        super().__init__(config)
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each table of images that has one of captions: those may be less."""
        captioned = set(inputs["captions"].files("*.parquet"))
        shards = [s for s in table_shards(inputs["images"]) if beside(s, "captions") in captioned]
        images, class_names = inputs["images"], None
        facts: tuple[str, ...] = FACTS
        if images.files(CLASS_NAMES):  # imported: the source has said its classes, and the files are its own
            class_names, facts = images.read_json(CLASS_NAMES), (*FACTS, "file")
        verdicts = inputs.get("verdicts")
        job = ShardTables(images, inputs["captions"], self.config, facts, verdicts)
        known = {IMAGE_SIZE: self.config.image_size, CLASS_NAMES: class_names}
        return ShardWork(shards=shards, job=job, workers=self.config.workers, facts=known)

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the index, and which samples trainings pass over."""
        found, verdicts = dict(stats), inputs.get("verdicts")
        if verdicts and verdicts.folder.exists(EXCLUDED):
            found["excluded"] = float(write_excluded(work.shards, verdicts, out))
        write_index(
            out,
            [dataset_shard(s.payload["file"])[1] for s in work.shards],
            self.config.image_size,
            work.facts[CLASS_NAMES],
        )
        return found
