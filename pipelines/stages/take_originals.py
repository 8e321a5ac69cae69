"""Stages: the real images of a protocol, from a dataset's validation split or from COCO."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import required
from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation import coco
from pipelines.evaluation.originals import KIND, About, Original, TakeJob
from pipelines.evaluation.real_images import ranges
from pipelines.evaluation.sampling import write_index
from pipelines.stages.tables import occupied
from reptok.bounds import Count, Whole
from reptok.metrics.protocols import OWN, PROTOCOLS, protocol

if TYPE_CHECKING:
    import numpy as np

    from pipelines.evaluation.dataset_view import DatasetView

EVERY_SHARD = 10**9


@dataclass(frozen=True, kw_only=True)
class TakeValidationConfig:
    """How many of them.

    Attributes:
        images: evenly spread over the split; 0 for all.
        rows_per_shard: images in a file.
        workers: who reads them.
    """

    images: Whole = 0
    rows_per_shard: Count = 500
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True)
class TakeValidationJob(TakeJob):
    """Read a range of the validation images."""

    dataset: Artifact
    images: int
    view: DatasetView = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """List the split once."""
        object.__setattr__(self, "view", _view(self.dataset, self.images))

    def pictures(self, shard: Shard) -> Iterator[tuple[Original, np.ndarray]]:
        """The rows `start` to `stop` of the payload."""
        from reptok.data.transforms import to_uint8

        for position in range(shard.payload["start"], shard.payload["stop"]):
            found = self.view.examples[position]
            (pixels,) = to_uint8(self.view.images([position]))
            yield Original(found.key, found.caption, found.label), pixels


class TakeValidation(Stage):
    """Copy the pictures of the validation split, with their captions and labels."""

    name, inputs, output = "take_validation", ("dataset",), KIND
    modules = ("pipelines.evaluation.dataset_view", "reptok.data.transforms")
    config: TakeValidationConfig

    def __init__(self, config: TakeValidationConfig):
        super().__init__(config)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config, dataset = self.config, inputs["dataset"]
        view = _view(dataset, config.images)
        keys = "".join(f"{example.key}\n" for example in view.examples)
        About(
            name=f"{OWN}_{dataset.fingerprint}", side=view.image_size, dataset=dataset.fingerprint,
            digest=hashlib.sha256(keys.encode()).hexdigest(),
            class_names=None if view.class_names is None else tuple(view.class_names),
        ).write(out)  # fmt: skip
        shards = ranges("originals", len(view), config.rows_per_shard)
        job = TakeValidationJob(view.image_size, dataset, config.images)
        stats = map_shards(shards, job, out, config.workers)
        write_index(out, shards)
        return stats


@dataclass(frozen=True, kw_only=True)
class TakeCocoConfig:
    """Which of COCO's images.

    Attributes:
        protocol: by whose rule.
        pictures: their folder.
        annotations: file of their captions.
        ids: file of annotation ids in the place of the rule; "" for the rule.
        images: how many, from the first; 0 for the protocol's.
        rows_per_shard: images in a file.
        workers: who reads them.
    """

    protocol: str = "coco2017_5k"
    pictures: str = field(default="", metadata={"reference": "images"})
    annotations: str = field(default="", metadata={"reference": "file"})
    ids: str = field(default="", metadata={"reference": "file"})
    images: Whole = 0
    rows_per_shard: Count = 500
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def chosen(self) -> list[coco.Chosen]:
        """The list; raises as `coco.choose`."""
        wanted = protocol(self.protocol)
        ids = required(self.ids, "evaluate.scores.ids") if self.ids else None
        annotations = required(self.annotations, "evaluate.scores.annotations")
        return coco.choose(annotations, wanted.order, self.images or wanted.images, ids)


@dataclass(frozen=True)
class TakeCocoJob(TakeJob):
    """Read and crop some of the images."""

    folder: Path
    crop: str

    def pictures(self, shard: Shard) -> Iterator[tuple[Original, np.ndarray]]:
        """Those that the payload names."""
        from reptok.data.images import CROPS, decode_image

        for key, name, caption in shard.payload["images"]:
            try:
                pixels = decode_image((self.folder / name).read_bytes())
            except (OSError, ValueError) as error:
                raise ValueError(f"{self.folder / name}: {error}") from error
            yield Original(key, caption), CROPS[self.crop](pixels, self.side)


class TakeCoco(Stage):
    """Crop the pictures of a protocol's list, each with its caption."""

    name, output = "take_coco", KIND
    modules = ("reptok.data.images",)
    config: TakeCocoConfig

    def __init__(self, config: TakeCocoConfig):
        super().__init__(config)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config, chosen = self.config, self.config.chosen()
        wanted = PROTOCOLS[config.protocol]
        ids = f"_{coco.list_name(required(config.ids, 'ids'))}" if config.ids else ""
        About(name=f"{wanted.name}{ids}", side=wanted.size, digest=coco.digest(chosen)).write(out)
        shards = []
        for shard in ranges("originals", len(chosen), config.rows_per_shard):
            some = chosen[shard.payload["start"] : shard.payload["stop"]]
            images = [[f"{one.image}-{one.annotation}", one.file, one.caption] for one in some]
            shards.append(Shard(shard.index, shard.name, shard.rows, {"images": images}))
        job = TakeCocoJob(wanted.size, required(config.pictures, "evaluate.scores.reference"), wanted.crop)
        stats = map_shards(shards, job, out, config.workers)
        write_index(out, shards)
        return stats


def _view(dataset: Artifact, images: int) -> DatasetView:
    from pipelines.evaluation.dataset_view import DatasetView

    return DatasetView(dataset, "val", images or EVERY_SHARD, shards=EVERY_SHARD)
