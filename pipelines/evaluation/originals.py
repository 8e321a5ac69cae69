"""Real images that a model is held against, cropped, each with what a generator is asked for in its place.

samples-{i}.npz      as those of a model
samples-{i}.jsonl    `key`, `caption` and `label` of each
index.json           the files
originals.json       whose they are
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.crawl.phash import look
from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.sampling import SAMPLES, sample_files

if TYPE_CHECKING:
    import numpy as np

    from reptok.generator.conditioner import Conditioner
    from reptok.pipeline import RepTokPipeline

ORIGINALS, OVERLAP = "originals.json", "overlap.json"
KIND = "originals"
LOOKS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class About:
    """Whose images they are.

    Attributes:
        name: of the protocol, as it stands in the scores' names.
        side: of the images in pixels.
        digest: SHA-256 of the list of their keys, which two who chose alike have in common.
        dataset: fingerprint of the dataset that they are of; "" where they are of none.
        class_names: name of each label; None without labels.
    """

    name: str
    side: int
    digest: str
    dataset: str = ""
    class_names: tuple[str, ...] | None = None

    def write(self, out: Workspace) -> None:
        """Write `originals.json`."""
        out.write_json(ORIGINALS, asdict(self))

    @classmethod
    def read(cls, originals: Artifact) -> About:
        """Read what `write` wrote."""
        found: dict[str, Any] = originals.read_json(ORIGINALS)
        names = found.pop("class_names")
        return cls(**found, class_names=None if names is None else tuple(names))


@dataclass(frozen=True)
class Original:
    """A real image without its pixels: its key, and what it is told to show."""

    key: str
    caption: str = ""
    label: int | None = None


@dataclass(frozen=True)
class Originals:
    """All of them, without pixels, as a model is asked for them."""

    about: About
    rows: tuple[Original, ...]

    @classmethod
    def read(cls, originals: Artifact) -> Originals:
        """Read an artifact."""
        files = sample_files(originals)
        return cls(About.read(originals), tuple(row for f in files for row in _rows(originals, f.file)))

    def __len__(self) -> int:
        return len(self.rows)

    def check(self, pipe: RepTokPipeline) -> None:
        """See that a model can be asked for them.

        Raises:
            ValueError: it makes images of another side, or what it is told is not known of them.
        """
        conditioner, about = pipe.conditioner, self.about
        if pipe.tokenizer.image_size != about.side:
            raise ValueError(
                f"the model makes images of {pipe.tokenizer.image_size} px, and those of {about.name} have "
                f"{about.side}: choose data.image_size={pipe.tokenizer.image_size}"
            )
        if conditioner.reads_text and not all(row.caption for row in self.rows):
            missing = sum(not row.caption for row in self.rows)
            raise ValueError(
                f"the model makes images of texts, and {missing:,} of {len(self)} images of {about.name} "
                "have no caption: choose a captioner, such as captioner=internvl3_1b"
            )
        if conditioner.reads_classes:
            ours, theirs = pipe.class_names, about.class_names
            if any(row.label is None for row in self.rows) or (ours and theirs and tuple(ours) != theirs):
                raise ValueError(
                    f"the model makes images of its classes ({_some(ours)}), and those of {about.name} have "
                    f"others ({_some(theirs)}): choose data of the same classes"
                )

    def asked(self, row: int, conditioner: Conditioner) -> str | int | None:
        """What a model is told in the place of an image: its caption, its label or nothing."""
        if conditioner.reads_text:
            return self.rows[row].caption
        return self.rows[row].label if conditioner.reads_classes else None


@dataclass(frozen=True)
class TakeJob(ShardJob):
    """Write the real images of a shard."""

    side: int

    @abstractmethod
    def pictures(self, shard: Shard) -> Iterator[tuple[Original, np.ndarray]]:
        """Each with its pixels, uint8 (S, S, 3)."""

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `samples-{i}.npz` and `.jsonl`."""
        import torch

        from reptok.metrics.sample_files import NpzWriter

        name, found = SAMPLES.format(shard.index), list(self.pictures(shard))
        lines = [json.dumps(asdict(original), ensure_ascii=False) for original, _ in found]
        with out.create(name) as file:
            target: Any = file
            archive = NpzWriter(target, len(found), self.side)
            for _, pixels in found:
                archive.add(torch.from_numpy(pixels).permute(2, 0, 1)[None])
            archive.close()
        out.write_bytes(name.replace(".npz", ".jsonl"), ("\n".join(lines) + "\n").encode())
        return {"rows_in": shard.rows, "rows_out": len(lines)}


def file_shards(images: Artifact) -> list[Shard]:
    """One shard for each file of images of an artifact: of originals, or of what a model made."""
    return [
        Shard(number, found.file.removesuffix(".npz"), found.rows, {"file": found.file})
        for number, found in enumerate(sample_files(images))
    ]


def with_starts(shards: Sequence[Shard]) -> list[Shard]:
    """The same shards, whose payloads also have `start`, the number of their first image."""
    starts = accumulate((shard.rows for shard in shards), initial=0)
    return [
        replace(shard, payload={**shard.payload, "start": start})
        for shard, start in zip(shards, starts, strict=False)
    ]


def refuse_known(model: Path | str, originals: Artifact, out: Workspace) -> None:
    """Compare the images with those that a model was trained on, and write how many could be compared.

    Raises:
        ValueError: Some of them were; a score on them would tell how well the model remembers.
    """
    from reptok.folder import local_folder
    from reptok.training_keys import Overlap, TrainingKeys

    images, found = Originals.read(originals), TrainingKeys.read(local_folder(model))
    about, keys = images.about, [row.key for row in images.rows]
    if found is None or not about.dataset:
        overlap = Overlap(len(keys), 0, 0)
    elif found.dataset == about.dataset:  # its validation split, which no training is given
        overlap = Overlap(len(keys), len(keys), 0)
    else:
        overlap = found.overlap(keys, lambda positions: _looks(originals, positions))
    if overlap.known:
        raise ValueError(
            f"{overlap.known:,} of {overlap.compared:,} validation images of {about.name} are among the "
            f"training images of {model}: a score on them would tell how well it remembers; choose the data "
            "that it was trained on, whose validation split it never saw, or others altogether"
        )
    started = found.started_from if found is not None else ""
    out.write_json(OVERLAP, {**asdict(overlap), "started_from": started})


def overlap_note(samples: Artifact) -> str:
    """What is known of whether a model saw these images before, in a sentence."""
    found = samples.read_json(OVERLAP)
    began = f" It began as {found['started_from']}, of whose training nothing is known here."
    more = began if found["started_from"] else ""
    if found["namesakes"]:
        more = f" {found['namesakes']:,} have the names of training images and are other pictures.{more}"
    if not found["compared"]:
        return f"Whether the model was trained on some of these images is not known: it does not say.{more}"
    return (
        f"None of the {found['compared']:,} images (of {found['images']:,}) that could be compared with the "
        f"model's training images is among them.{more}"
    )


def _looks(originals: Artifact, positions: Sequence[int]) -> list[int]:
    """The looks of the images at some positions, ascending."""
    from reptok.metrics.sample_files import NpzImages

    found, wanted, start = [], set(positions), 0
    for file in sample_files(originals):
        if not wanted.isdisjoint(range(start, start + file.rows)):
            for batch in NpzImages(originals.local_path(file.file)).batches(LOOKS_AT_ONCE):
                for image in batch:
                    if start in wanted:
                        found.append(look(image.movedim(0, -1).numpy()))
                    start += 1
        else:
            start += file.rows
    return found


def _rows(originals: Artifact, file: str) -> Iterator[Original]:
    for line in originals.read_bytes(file.replace(".npz", ".jsonl")).splitlines():
        yield Original(**json.loads(line))


def _some(names: Sequence[str] | None) -> str:
    return ", ".join([*(names or ["none"])[:3], *(["..."] if names and len(names) > 3 else [])])
