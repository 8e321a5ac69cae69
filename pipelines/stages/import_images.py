"""Stage import_images: pictures that somebody has, with or without classes or captions, become a dataset.

They lie in a folder of picture files, of parquet files or of WebDataset tars, or on the hub: see
`pipelines/sources`. Where a captioner is to look at them first, they become `images`, as a download's do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from PIL import ImageColor

from pipelines.captions.joined import JoinedTexts
from pipelines.crawl.resize import SUBSAMPLINGS
from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.rows import RowErrors, is_ours
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.sources.captions import CaptionsConfig
from pipelines.sources.layouts import LISTED, READ, layout_of, open_source
from pipelines.sources.source import Picture
from pipelines.stages.dataset import CLASS_NAMES, IMAGE_SIZE, DatasetShardWriter, dataset_files, write_index
from pipelines.stages.image_table import ImageTableWriter, image_table
from pipelines.stages.tables import occupied
from reptok.bounds import Count, Decay, Pixels, Quality
from reptok.data.images import centre_crop, decode_image, encode_jpeg
from reptok.data.shards import Sample, place_of, split_of
from reptok.terminal import visible

SHOWN_FAULTS = 5
FAULTS = "source_faults"
MIN_VAL, MANY_ROWS = 8, 10_000
"""Samples that validate at least, and rows of which chance gives as many."""


@dataclass(frozen=True, kw_only=True)
class ImportImagesConfig:
    """Which pictures, and what becomes of them.

    Attributes:
        folder: The folder of pictures, a dataset of the hub (hf://), or artifact:KIND for a folder that
            another stage makes; it follows from data.folder.
        layout: "folder" (picture files), "parquet", "webdataset"; "auto" goes by the files that it has.
        listing: Digest of its listing, so that a changed folder is another dataset.
        image_size: Side of the images: the shorter side is resized to it, the middle is kept.
        background: What transparent pixels are laid on: a colour's name, or #rrggbb.
        captions: Where captions stand; data.captions.
        val_fraction: Expected share of validation samples, unless the source tells its splits; a small source
            gives `MIN_VAL` all the same.
        samples_per_shard: Pictures in one shard; a WebDataset keeps its own shards.
        jpeg_quality: Of the stored images.
        subsampling: Of their colours; "4:4:4" keeps all, which shows in small pictures.
        workers: Actors and what each occupies.
    """

    folder: str = ""
    layout: Literal["auto", "folder", "parquet", "webdataset"] = "auto"
    listing: str = ""
    image_size: Pixels = 256
    background: str = "white"
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    val_fraction: Decay = 0.02
    samples_per_shard: Count = 1000
    jpeg_quality: Quality = 95
    subsampling: Literal["4:2:0", "4:2:2", "4:4:4"] = "4:2:0"
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"import_images.val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.subsampling not in SUBSAMPLINGS:
            raise ValueError(
                f"import_images.subsampling is one of {', '.join(SUBSAMPLINGS)}, not {self.subsampling!r}"
            )
        if self.samples_per_shard < 1:
            raise ValueError(
                f"import_images.samples_per_shard must be at least 1, got {self.samples_per_shard}"
            )
        try:
            ImageColor.getrgb(self.background)
        except ValueError as error:
            raise ValueError(f"import_images.background={self.background}: {error}") from error
        if self.layout not in ("auto", *LISTED):
            raise ValueError(f"import_images.layout is auto, {', '.join(LISTED)}, not {self.layout!r}")


@dataclass(frozen=True)
class ImportJob(ShardJob):
    """Read, crop and store the pictures of one part of a source.

    Attributes:
        config: What becomes of them; val_fraction is that of the source.
        layout: The source's.
        classes: Names of its classes.
        texts: Captions by name, as `index_captions` made them.
        own_split: Whether the source says which samples are for validation.
        to_images: Write a table of images, for a captioner, instead of a dataset's shards.
    """

    config: ImportImagesConfig
    layout: str
    classes: tuple[str, ...] | None
    texts: Artifact | None = None
    own_split: bool = True
    to_images: bool = False
    joined: JoinedTexts | None = field(default=None, init=False, compare=False)

    def setup(self) -> None:
        """Open the captions of the other table."""
        if self.texts is not None:
            object.__setattr__(self, "joined", JoinedTexts(self.texts.local_path()))

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` and `.parquet` of both splits, or `images-{i}.parquet`.

        What cannot be read is counted, by reason.
        """
        stats = {"rows_in": float(shard.rows), "rows_out": 0.0, "dropped_unreadable": 0.0}
        with self._writer(shard, out) as writer:
            for sample, split in self._samples(shard, stats):
                writer.add(sample, split)
                stats["rows_out"] += 1
                if not sample.caption:
                    stats["without_caption"] = stats.get("without_caption", 0.0) + 1
        return stats

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write shards, or a table, without samples."""
        with self._writer(shard, out):
            pass

    def _writer(self, shard: Shard, out: Workspace) -> DatasetShardWriter | ImageTableWriter:
        kind = ImageTableWriter if self.to_images else DatasetShardWriter
        return kind(out, shard.index)

    def _samples(self, shard: Shard, stats: dict[str, float]) -> Iterator[tuple[Sample, str]]:
        """The samples with their splits; what is dropped is counted."""
        first, errors = shard.payload["first"], RowErrors(shard.name, shard.rows)
        for number, picture in enumerate(self._pictures(shard, errors), first):
            key = f"{number:012d}"
            try:
                sample, reason = self._sample(key, picture, stats)
            except Exception as error:
                sample, reason = None, errors.reason(picture.name, error)
            if sample is None:
                stats[f"dropped_{reason}"] = stats.get(f"dropped_{reason}", 0.0) + 1
                continue
            told = picture.split if self.own_split else ""
            yield sample, told or split_of(key, self.config.val_fraction)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """Shards of both splits, or the table."""
        return (image_table(shard.index),) if self.to_images else dataset_files(shard.index)

    def _pictures(self, shard: Shard, errors: RowErrors) -> Iterator[Picture]:
        """The part's rows; where its file is damaged, what is missing follows as damaged rows."""
        count = 0
        try:
            for picture in READ[self.layout](Path(self.config.folder), self.classes, shard.payload["place"]):
                count += 1
                yield picture
        except ValueError as error:
            print(f"import_images: {visible(error)}", flush=True)
        except Exception as error:
            if count >= shard.rows or (isinstance(error, OSError) and is_ours(error)):
                raise
            yield Picture(shard.name, reason=errors.reason(f"row {count} of {shard.name}", error))
            count += 1
        for _ in range(count, shard.rows):
            yield Picture(shard.name, reason="damaged_file")

    def _sample(self, key: str, picture: Picture, stats: dict[str, float]) -> tuple[Sample | None, str]:
        if picture.reason:
            return None, picture.reason
        try:
            image = decode_image(picture.data, background=self.config.background)
        except ValueError:
            return None, "unreadable"
        pixels = centre_crop(image, self.config.image_size)
        info = {
            "key": key,
            "file": picture.name,
            "width": pixels.shape[1],
            "height": pixels.shape[0],
            "original_width": image.shape[1],
            "original_height": image.shape[0],
        }
        if picture.label is not None:
            info |= {"label": picture.label} | ({"subject": picture.subject} if picture.subject else {})
        caption = self.joined.get(picture.keys) if self.joined else None
        if caption is not None:
            stats["captions_joined"] = stats.get("captions_joined", 0.0) + 1
        elif picture.caption is not None:
            caption = picture.caption
        else:
            caption = (picture.subject or "").replace("_", " ")
        jpg = encode_jpeg(pixels, self.config.jpeg_quality, self.config.subsampling)
        return Sample(key, jpg, caption, info), ""


class ImportImages(ShardStage):
    """Make a dataset of pictures that exist; replaces select_urls, download, caption and shard."""

    name, output, version = "import_images", "dataset", 3

    def __init__(self, config: ImportImagesConfig):
        super().__init__(config)
        made = config.folder.removeprefix(ARTIFACT) if config.folder.startswith(ARTIFACT) else ""
        self.made = (made,) if made else ()
        self.inputs = (*self.made, *(("texts",) if config.captions.join else ()))
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each part of the source."""
        config = self.config
        if self.made:
            config = replace(config, folder=str(inputs[self.made[0]].local_path()))
        source = open_source(config.folder, config.layout, config.captions)
        shards, first = [], 0
        for index, part in enumerate(source.parts(config.samples_per_shard)):
            shards.append(Shard(index, part.name, part.rows, {"first": first, "place": part.place}))
            first += part.rows
        for line in source.faults[:SHOWN_FAULTS]:
            print(f"  {self.name}: {visible(line)}", flush=True)
        if len(source.faults) > SHOWN_FAULTS:
            print(f"  {self.name}: and {len(source.faults) - SHOWN_FAULTS} more such lines", flush=True)
        layout = layout_of(source.folder) if config.layout == "auto" else config.layout
        fraction = enough_to_validate(config.val_fraction, first)
        job = ImportJob(
            replace(config, folder=str(source.folder), val_fraction=fraction), layout, source.class_names,
            texts=inputs.get("texts"), own_split="val" in source.splits, to_images=self.output == "images",
        )  # fmt: skip
        class_names = list(source.class_names or ()) or None
        if job.to_images:
            out.write_json(CLASS_NAMES, class_names)
        facts = {IMAGE_SIZE: config.image_size, CLASS_NAMES: class_names, FAULTS: len(source.faults)}
        return ShardWork(shards=shards, job=job, workers=config.workers, facts=facts)

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Write the index of a dataset; what lacks a caption is told if no captioner comes."""
        if self.output == "dataset":
            write_index(out, len(work.shards), self.config.image_size, work.facts[CLASS_NAMES])
            if missing := stats.get("without_caption"):
                print(f"  {self.name}: {missing:.0f} pictures have no caption", flush=True)
        return {**stats, FAULTS: float(work.facts[FAULTS])}


class ImportToCaption(ImportImages):
    """Make a table of images of the same pictures, for a captioner to look at before they become a dataset.

    images-{shard}.parquet   `columns.IMAGES`, and `file`, where the picture came from
    classes.json             names of the source's classes
    """

    output, version = "images", 4


def enough_to_validate(fraction: float, rows: int) -> float:
    """The share for validation, raised so that of few rows `MIN_VAL` or a quarter are drawn all the same.

    A share of 0 stays.
    """
    wanted = min(MIN_VAL, rows // 4)
    if not fraction or not wanted or rows > MANY_ROWS:
        return fraction
    places = sorted(place_of(f"{number:012d}") for number in range(rows))
    return max(fraction, math.nextafter(places[wanted - 1], 1.0))
