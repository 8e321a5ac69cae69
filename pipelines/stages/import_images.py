"""Stage import_images: pictures that somebody has, with or without classes or captions, become a dataset.

They lie in a folder of picture files, of parquet files or of WebDataset tars, or on the hub: see
`pipelines/sources`. Where a captioner is to look at them first, they become `images`, as a download's do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

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
from pipelines.sources.source import Part, Picture
from pipelines.stages.dataset import CLASS_NAMES, IMAGE_SIZE, DatasetShardWriter, dataset_files, write_index
from pipelines.stages.image_table import ImageTableWriter, image_table
from pipelines.stages.tables import occupied
from reptok.bounds import Count, Decay, Pixels, Quality
from reptok.data.images import centre_crop, decode_image, encode_jpeg
from reptok.data.index import SPLITS, shard_name
from reptok.data.shards import Sample
from reptok.data.sorting import by_key
from reptok.terminal import visible

SHOWN_FAULTS = 5
FAULTS = "source_faults"


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
            gives 8, or about a quarter. Of many tars or parquet files whole ones are held out.
        samples_per_shard: Pictures in one shard; a WebDataset keeps its own shards for training.
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
        config: What becomes of them.
        layout: The source's.
        classes: Names of its classes.
        texts: Captions by name, as `index_captions` made them.
        to_images: Write a table of images, for a captioner, instead of a dataset's shards.
    """

    config: ImportImagesConfig
    layout: str
    classes: tuple[str, ...] | None
    texts: Artifact | None = None
    to_images: bool = False
    joined: JoinedTexts | None = field(default=None, init=False, compare=False)

    def setup(self) -> None:
        """Open the captions of the other table."""
        if self.texts is not None:
            object.__setattr__(self, "joined", JoinedTexts(self.texts.local_path()))

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` and `.parquet`, or `images-{split}-{i}.parquet`, in the order of the keys.

        What cannot be read is counted, by reason.
        """
        stats = {"rows_in": float(shard.rows), "rows_out": 0.0, "dropped_unreadable": 0.0}
        with self._writer(shard, out) as writer:
            for sample in by_key(self._samples(shard, stats)):
                writer.add(sample)
                stats["rows_out"] += 1
                if not sample.caption:
                    stats["without_caption"] = stats.get("without_caption", 0.0) + 1
        return stats

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Write a shard, or a table, without samples."""
        with self._writer(shard, out):
            pass

    def _writer(self, shard: Shard, out: Workspace) -> DatasetShardWriter | ImageTableWriter:
        kind = ImageTableWriter if self.to_images else DatasetShardWriter
        return kind(out, shard.payload["shard"])

    def _samples(self, shard: Shard, stats: dict[str, float]) -> Iterator[Sample]:
        """The samples; what is dropped is counted."""
        errors = RowErrors(shard.name, shard.rows)
        for span in shard.payload["spans"]:
            for picture in self._pictures(shard.name, span, errors):
                try:
                    sample, reason = self._sample(picture.key, picture, stats)
                except Exception as error:
                    sample, reason = None, errors.reason(picture.name, error)
                if sample is not None:
                    yield sample
                else:
                    stats[f"dropped_{reason}"] = stats.get(f"dropped_{reason}", 0.0) + 1

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The shard, or the table."""
        name = shard.payload["shard"]
        return (image_table(name),) if self.to_images else dataset_files(name)

    def _pictures(self, name: str, span: Mapping[str, Any], errors: RowErrors) -> Iterator[Picture]:
        """A span's rows; where its file is damaged, what is missing follows as damaged rows."""
        count = 0
        try:
            for picture in READ[self.layout](Path(self.config.folder), self.classes, span["place"]):
                count += 1
                yield picture
        except ValueError as error:
            print(f"import_images: {visible(error)}", flush=True)
        except Exception as error:
            if count >= span["rows"] or (isinstance(error, OSError) and is_ours(error)):
                raise
            yield Picture(name, reason=errors.reason(f"row {count} of {name}", error))
            count += 1
        for _ in range(count, span["rows"]):
            yield Picture(name, reason="damaged_file")

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

    name, output, version = "import_images", "dataset", 4

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
        shards = part_shards(source.parts(config.samples_per_shard, config.val_fraction))
        for line in source.faults[:SHOWN_FAULTS]:
            print(f"  {self.name}: {visible(line)}", flush=True)
        if len(source.faults) > SHOWN_FAULTS:
            print(f"  {self.name}: and {len(source.faults) - SHOWN_FAULTS} more such lines", flush=True)
        layout = layout_of(source.folder) if config.layout == "auto" else config.layout
        config = replace(config, folder=str(source.folder))
        to_images = self.output == "images"
        job = ImportJob(config, layout, source.class_names, inputs.get("texts"), to_images)
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
            write_index(
                out,
                [shard.payload["shard"] for shard in work.shards],
                self.config.image_size,
                work.facts[CLASS_NAMES],
            )
            if missing := stats.get("without_caption"):
                print(f"  {self.name}: {missing:.0f} pictures have no caption", flush=True)
        return {**stats, FAULTS: float(work.facts[FAULTS])}


class ImportToCaption(ImportImages):
    """Make a table of images of the same pictures, for a captioner to look at before they become a dataset.

    images-{split}-{number}.parquet   `columns.IMAGES`, and `file`, where the picture came from
    classes.json                      names of the source's classes
    """

    output, version = "images", 5


def part_shards(parts: Sequence[Part]) -> list[Shard]:
    """One shard of an `ImportJob` for each part of a source, numbered within its split."""
    shards, numbers = [], dict.fromkeys(SPLITS, 0)
    for index, part in enumerate(parts):
        spans = [{"rows": span.rows, "place": span.place} for span in part.spans]
        payload = {"shard": shard_name(part.split, numbers[part.split]), "spans": spans}
        shards.append(Shard(index, part.name, part.rows, payload))
        numbers[part.split] += 1
    return shards
