"""Stage import_images: a folder of pictures, with or without classes, becomes a dataset.

folder/cat/1.jpg  folder/dog/2.png        one subfolder per class
folder/train/cat/1.jpg  folder/val/...    the same, already split
folder/1.jpg  folder/1.txt                no classes; a .txt beside a picture is its caption
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.stages.dataset import DatasetShardWriter, write_index
from pipelines.stages.tables import occupied
from reptok.data.images import centre_crop, decode_image, encode_jpeg
from reptok.data.shards import Sample, split_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImportImagesConfig:
    """Which pictures, and what becomes of them.

    Attributes:
        folder: The folder of pictures; "" for those of another stage.
        listing: Its `listing_digest`, so that a changed folder is another dataset.
        image_size: Side of the images: the shorter side is resized to it, the middle is kept.
        val_fraction: Expected share of validation samples, unless the folder has `train/` and `val/`.
        samples_per_shard: Pictures in one shard.
        jpeg_quality: Of the stored images.
        workers: Actors and what each occupies.
    """

    folder: str = ""
    listing: str = ""
    image_size: int = 256
    val_fraction: float = 0.02
    samples_per_shard: int = 1000
    jpeg_quality: int = 95
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"import_images.val_fraction must be in [0, 1), got {self.val_fraction}")
        if self.samples_per_shard < 1:
            raise ValueError(
                f"import_images.samples_per_shard must be at least 1, got {self.samples_per_shard}"
            )


@dataclass(frozen=True)
class Picture:
    """A file of the folder: its relative path, the split that the folder says ("" for none), its class."""

    path: str
    split: str
    subject: str | None


@dataclass(frozen=True)
class ImportJob(ShardJob):
    """Read, crop and store the pictures of one shard."""

    config: ImportImagesConfig
    classes: tuple[str, ...]

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` and `.parquet` of both splits; count the pictures that cannot be read."""
        stats = {"rows_in": float(shard.rows), "rows_out": 0.0, "dropped_unreadable": 0.0}
        with DatasetShardWriter(out, shard.index) as writer:
            for number, (path, split, subject) in enumerate(
                shard.payload["pictures"], shard.payload["first"]
            ):
                key = f"{number:012d}"
                source = Path(self.config.folder, path)
                try:
                    image = decode_image(source.read_bytes())
                except (OSError, ValueError):
                    stats["dropped_unreadable"] += 1
                    continue
                pixels = centre_crop(image, self.config.image_size)
                info = {
                    "key": key,
                    "file": path,
                    "width": pixels.shape[1],
                    "height": pixels.shape[0],
                    "original_width": image.shape[1],
                    "original_height": image.shape[0],
                }
                if subject is not None:
                    info |= {"subject": subject, "label": self.classes.index(subject)}
                sample = Sample(
                    key, encode_jpeg(pixels, self.config.jpeg_quality), _caption(source, subject), info
                )
                writer.add(sample, split or split_of(key, self.config.val_fraction))
                stats["rows_out"] += 1
        return stats


class ImportImages(Stage):
    """Make a dataset of a folder of pictures; replaces select_urls, download, caption and shard."""

    name, output, version = "import_images", "dataset", 1

    def __init__(self, config: ImportImagesConfig, inputs: tuple[str, ...] = ()):
        """Read the artifact of kind "pictures" in the place of `config.folder`, where `inputs` names it."""
        super().__init__(config)
        self.inputs = inputs
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config = self.config
        if self.inputs:
            config = replace(config, folder=str(inputs["pictures"].local_path()))
        pictures = list_pictures(config.folder)
        classes = tuple(sorted({picture.subject for picture in pictures if picture.subject is not None}))
        step = config.samples_per_shard
        shards = []
        for index, first in enumerate(range(0, len(pictures), step)):
            part = [
                [picture.path, picture.split, picture.subject] for picture in pictures[first : first + step]
            ]
            shards.append(
                Shard(index, f"pictures-{index:05d}", len(part), {"first": first, "pictures": part})
            )
        stats = map_shards(shards, ImportJob(config, classes), out, config.workers)
        write_index(out, len(shards), config.image_size, list(classes) or None)
        return stats


def list_pictures(folder: str) -> list[Picture]:
    """List the pictures of a folder in an order that mixes the classes: by the hash of their paths.

    Raises:
        FileNotFoundError: There is no such folder.
        PermissionError: It cannot be read.
        ValueError: It holds no picture, or pictures both beside and inside class folders.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder!r}; set import_images.folder to one with pictures"
        )
    paths = [path.relative_to(root) for path in _walk(root)]
    if not paths:
        raise ValueError(
            f"{folder!r} holds no pictures (looked for {', '.join(EXTENSIONS)}, in subfolders too)"
        )
    split = {path.parts[0] for path in paths} <= {"train", "val"} and all(
        len(path.parts) > 1 for path in paths
    )
    skip = 1 if split else 0
    flat = [path for path in paths if len(path.parts) == skip + 1]
    if flat and len(flat) < len(paths):
        raise ValueError(
            f"{folder!r} holds pictures beside its class folders, {flat[0].as_posix()} for one; "
            "move them into a class folder, or all pictures into one folder"
        )
    pictures = [
        Picture(path.as_posix(), path.parts[0] if split else "", None if flat else path.parts[skip])
        for path in paths
    ]
    return sorted(pictures, key=lambda picture: (sha256(picture.path.encode()).digest(), picture.path))


def listing_digest(folder: str, pictures: Sequence[Picture]) -> str:
    """Digest of the names and sizes of a folder's pictures: cheap, and other when pictures come or go."""
    digest = sha256()
    for picture in pictures:
        digest.update(f"{picture.path}\0{Path(folder, picture.path).stat().st_size}\0".encode())
    return digest.hexdigest()[:16]


def _walk(root: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise PermissionError(
            f"cannot read {error.filename!r}: {error.strerror}; change its permissions"
        ) from error

    found = []
    for directory, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(directory, name)
            for name in files
            if not name.startswith(".") and name.lower().endswith(EXTENSIONS)
        ]
    return found


def _caption(source: Path, subject: str | None) -> str:
    beside = source.with_suffix(".txt")
    try:
        return " ".join(beside.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return "" if subject is None else subject.replace("_", " ")
