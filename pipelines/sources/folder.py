"""Folders of picture files.

folder/cat/1.jpg  folder/dog/2.png        one subfolder per class
folder/train/cat/1.jpg  folder/val/...    the same, already split
folder/1.jpg  folder/1.txt                no classes; the caption in a .txt beside a picture, or in a .json
folder/1.jpg  folder/metadata.jsonl       or one line per picture: {"file_name": "1.jpg", "text": "..."}
folder/ILSVRC/Data/CLS-LOC/{train,val}    ImageNet-1k as its challenge hands it out (see `imagenet`)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.sources import imagenet
from pipelines.sources.metadata import NAMES, beside, caption_beside, read_metadata
from pipelines.sources.source import (
    OUTSIDE,
    OutsideError,
    Part,
    Picture,
    Source,
    Span,
    read_file,
    shown,
    walk,
)
from reptok.data.keys import enough_to_validate, key_of, split_of

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Listed:
    """A file of the folder: its relative path, the split that the folder says ("" for none), its class."""

    path: str
    split: str
    subject: str | None


@dataclass
class FolderSource(Source):
    """A folder of picture files, in an order that mixes the classes: that of their keys.

    Raises:
        PermissionError: It cannot be read.
        ValueError: It holds no picture, or pictures both beside and inside class folders.
    """

    pictures: list[Listed] = field(init=False)
    captions: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        display: dict[str, str] = {}
        metadata: list[Path] = []
        self._texts: set[Path] = set()
        deep: list[str] = []
        if imagenet.is_challenge(self.folder):
            listed, display = imagenet.list_challenge(self.folder, _listed(self.folder, deep)[0])
            self.pictures = [Listed(*entry) for entry in listed]
        else:
            paths, metadata, self._texts = _listed(self.folder, deep)
            self.pictures = _by_folder(self.folder, paths)
        self.captions, faults = read_metadata(self.folder, metadata, self.fields)
        self.faults = deep + faults
        present = {picture.path for picture in self.pictures}
        for name in sorted(self.captions.keys() - present):
            self.faults.append(f"the metadata names {name!r}, which is no picture of the folder")
        self.pictures.sort(key=lambda picture: key_of(picture.path))
        subjects = sorted({picture.subject for picture in self.pictures if picture.subject is not None})
        self._labels = {subject: number for number, subject in enumerate(subjects)}
        names = [display.get(subject, shown(subject)) for subject in subjects]
        self.class_names, self.num_classes = tuple(names) or None, len(names)
        self.rows = len(self.pictures)
        self.splits = frozenset(picture.split for picture in self.pictures)
        self.captioned = sum(p.path in self.captions or bool(self._beside(p.path)) for p in self.pictures)

    def parts(self, rows: int, val_fraction: float) -> list[Part]:
        drawn = [picture for picture in self.pictures if not (self.own_split and picture.split)]
        fraction = enough_to_validate([key_of(picture.path) for picture in drawn], val_fraction)
        parts: list[Part] = []
        for split in ("val", "train"):
            mine = [picture for picture in self.pictures if self._split(picture, fraction) == split]
            for number, first in enumerate(range(0, len(mine), rows)):
                entries = [
                    [p.path, p.split, self._labels.get(p.subject or ""), self.captions.get(p.path)]
                    for p in mine[first : first + rows]
                ]
                span = Span(len(entries), {"pictures": entries, "fields": self.fields})
                parts.append(Part(f"{split}-{number:05d}", split, (span,)))
        return parts

    def _split(self, picture: Listed, fraction: float) -> str:
        return (picture.split if self.own_split else "") or split_of(key_of(picture.path), fraction)

    def digest(self) -> str:
        digest = sha256()
        for picture in self.pictures:
            texts = [_facts(self.folder / path) for path in self._beside(picture.path)]
            facts = (_facts(self.folder / picture.path)[0], texts, self.captions.get(picture.path))
            digest.update(os.fsencode(f"{picture.path}\0{facts}\0"))
        return digest.hexdigest()[:16]

    def _beside(self, path: str) -> list[Path]:
        """The files beside a picture that may hold its caption."""
        return [p for p in map(Path(path).with_suffix, beside(self.fields)) if p in self._texts]


def read(folder: Path, names: tuple[str, ...] | None, place: dict[str, Any]) -> Iterator[Picture]:
    """Yield the pictures of a part; see `source.Read`."""
    for path, split, label, caption in place["pictures"]:
        subject = names[label] if names and label is not None else None
        data, reason = b"", ""
        try:
            caption = caption if caption is not None else caption_beside(folder, path, place["fields"])
            data = read_file(folder, path)
        except OutsideError:
            reason = OUTSIDE
        except ValueError:
            reason = "unreadable"
        keys = (shown(path), shown(str(Path(path).with_suffix(""))))
        yield Picture(shown(path), data, reason, split, label, subject, caption, keys, key_of(path))


def _by_folder(root: Path, paths: list[Path]) -> list[Listed]:
    if not paths:
        raise ValueError(
            f"'{root}' holds no pictures (looked for {', '.join(EXTENSIONS)}, in subfolders too; and for "
            ".parquet and .tar files)"
        )
    split = {path.parts[0] for path in paths} <= {"train", "val"} and all(
        len(path.parts) > 1 for path in paths
    )
    skip = 1 if split else 0
    flat = [path for path in paths if len(path.parts) == skip + 1]
    if flat and len(flat) < len(paths):
        raise ValueError(
            f"'{root}' holds pictures beside its class folders, {flat[0].as_posix()} for one; "
            "move them into a class folder, or all pictures into one folder"
        )
    return [
        Listed(path.as_posix(), path.parts[0] if split else "", None if flat else path.parts[skip])
        for path in paths
    ]


def _listed(root: Path, faults: list[str]) -> tuple[list[Path], list[Path], set[Path]]:
    """Relative paths of the pictures, absolute ones of the metadata files, relative ones of texts."""
    pictures, metadata, texts = [], [], set()
    for place, _, names in walk(root, faults):
        for name in names:
            if name in NAMES:
                metadata.append(root / place / name)
            elif name.lower().endswith(EXTENSIONS):
                pictures.append(place / name)
            elif name.endswith((".txt", ".json")):
                texts.add(place / name)
    return pictures, metadata, texts


def _facts(path: Path) -> tuple[int, int]:
    """Size and time of a file: a corrected caption may be as long as the wrong one."""
    try:
        found = path.stat()
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns
