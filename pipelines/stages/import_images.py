"""Stage import_images: pictures that somebody has, with or without classes or captions, become a dataset.

They lie in a folder of picture files, of parquet files or of WebDataset tars: see `pipelines/sources`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.rows import RowErrors, is_ours
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.sources.layouts import LISTED, READ, layout_of, open_source
from pipelines.sources.source import Picture
from pipelines.stages.dataset import DatasetShardWriter, write_index
from pipelines.stages.tables import occupied
from reptok.bounds import Count, Decay, Pixels, Quality
from reptok.data.images import centre_crop, decode_image, encode_jpeg
from reptok.data.shards import Sample, split_of
from reptok.terminal import visible

SHOWN_FAULTS = 5


@dataclass(frozen=True, kw_only=True)
class ImportImagesConfig:
    """Which pictures, and what becomes of them.

    Attributes:
        folder: The folder of pictures, or artifact:KIND for one that another stage makes.
        layout: "folder" (picture files), "parquet", "webdataset"; "auto" goes by the files that it has.
        listing: Digest of its listing, so that a changed folder is another dataset.
        image_size: Side of the images: the shorter side is resized to it, the middle is kept.
        val_fraction: Expected share of validation samples, unless the source tells its splits.
        samples_per_shard: Pictures in one shard; a WebDataset keeps its own shards.
        jpeg_quality: Of the stored images.
        workers: Actors and what each occupies.
    """

    folder: str = ""
    layout: Literal["auto", "folder", "parquet", "webdataset"] = "auto"
    listing: str = ""
    image_size: Pixels = 256
    val_fraction: Decay = 0.02
    samples_per_shard: Count = 1000
    jpeg_quality: Quality = 95
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"import_images.val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.samples_per_shard < 1:
            raise ValueError(
                f"import_images.samples_per_shard must be at least 1, got {self.samples_per_shard}"
            )
        if self.layout not in ("auto", *LISTED):
            raise ValueError(f"import_images.layout is auto, {', '.join(LISTED)}, not {self.layout!r}")


@dataclass(frozen=True)
class ImportJob(ShardJob):
    """Read, crop and store the pictures of one part of a source."""

    config: ImportImagesConfig
    layout: str
    classes: tuple[str, ...] | None

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` and `.parquet` of both splits; count what cannot be read, by reason."""
        stats = {"rows_in": float(shard.rows), "rows_out": 0.0, "dropped_unreadable": 0.0}
        first, errors = shard.payload["first"], RowErrors(shard.name, shard.rows)
        with DatasetShardWriter(out, shard.index) as writer:
            for number, picture in enumerate(self._pictures(shard, errors), first):
                key = f"{number:012d}"
                try:
                    sample, reason = self._sample(key, picture)
                except Exception as error:
                    sample, reason = None, errors.reason(picture.name, error)
                if sample is None:
                    stats[f"dropped_{reason}"] = stats.get(f"dropped_{reason}", 0.0) + 1
                    continue
                writer.add(sample, picture.split or split_of(key, self.config.val_fraction))
                stats["rows_out"] += 1
        return stats

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

    def _sample(self, key: str, picture: Picture) -> tuple[Sample | None, str]:
        if picture.reason:
            return None, picture.reason
        try:
            image = decode_image(picture.data)
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
        caption = (
            picture.caption if picture.caption is not None else (picture.subject or "").replace("_", " ")
        )
        return Sample(key, encode_jpeg(pixels, self.config.jpeg_quality), caption, info), ""


class ImportImages(Stage):
    """Make a dataset of a folder of pictures; replaces select_urls, download, caption and shard."""

    name, output, version = "import_images", "dataset", 2

    def __init__(self, config: ImportImagesConfig):
        super().__init__(config)
        made = config.folder.removeprefix(ARTIFACT) if config.folder.startswith(ARTIFACT) else ""
        self.inputs = (made,) if made else ()
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config = self.config
        if self.inputs:
            config = replace(config, folder=str(inputs[self.inputs[0]].local_path()))
        source = open_source(config.folder, config.layout)
        folder = source.folder
        shards, first = [], 0
        for index, part in enumerate(source.parts(config.samples_per_shard)):
            shards.append(Shard(index, part.name, part.rows, {"first": first, "place": part.place}))
            first += part.rows
        for line in source.faults[:SHOWN_FAULTS]:
            print(f"  {self.name}: {visible(line)}", flush=True)
        if len(source.faults) > SHOWN_FAULTS:
            print(f"  {self.name}: and {len(source.faults) - SHOWN_FAULTS} more such lines", flush=True)
        layout = layout_of(folder) if config.layout == "auto" else config.layout
        job = ImportJob(replace(config, folder=str(folder)), layout, source.class_names)
        stats = map_shards(shards, job, out, config.workers)
        write_index(out, len(shards), config.image_size, list(source.class_names or ()) or None)
        return {**stats, "source_faults": float(len(source.faults))}
