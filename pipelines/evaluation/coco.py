"""Which images and captions of COCO a protocol takes: a rule that gives everybody the same list.

The first caption of an image is that of the lowest annotation id. The images are the first ones by their ids,
or by the SHA-256 of their ids as decimal text, which is an even choice. A file of annotation ids, one a line,
takes the rule's place; the score's name then holds its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMED_DIGITS = 12


@dataclass(frozen=True)
class Chosen:
    """An image with the caption that stands for it."""

    image: int
    annotation: int
    file: str
    caption: str


def choose(annotations: Path, order: str, images: int, ids: Path | None = None) -> list[Chosen]:
    """The images of a protocol, in order.

    Args:
        annotations: COCO's file of captions, such as `captions_val2014.json`.
        order: "hashed" or "ascending"; see `Protocol.order`.
        images: how many at most.
        ids: a file of annotation ids, which are taken in its order.

    Raises:
        ValueError: The file is none of COCO's captions, or an id is not in it or there twice.
    """
    files, captions = _read(annotations)
    if ids is not None:
        chosen = [_of(captions, files, annotation, ids) for annotation in _listed(ids)]
        if len({one.image for one in chosen}) != len(chosen):
            raise ValueError(f"{ids} names an image twice: one caption an image")
        return chosen[:images]
    first: dict[int, int] = {}
    for annotation, (image, _) in captions.items():
        first[image] = min(first.get(image, annotation), annotation)
    ordered = sorted(first, key=_hashed if order == "hashed" else int)
    return [_of(captions, files, first[image], annotations) for image in ordered[:images]]


def digest(chosen: Iterable[Chosen]) -> str:
    """SHA-256 of `image annotation`, a line each."""
    lines = "".join(f"{one.image} {one.annotation}\n" for one in chosen)
    return hashlib.sha256(lines.encode()).hexdigest()


def list_name(ids: Path) -> str:
    """What of a file of ids stands in a score's name."""
    return f"ids{hashlib.sha256(ids.read_bytes()).hexdigest()[:NAMED_DIGITS]}"


def _hashed(image: int) -> bytes:
    return hashlib.sha256(str(image).encode()).digest()


def _read(annotations: Path) -> tuple[dict[int, str], dict[int, tuple[int, str]]]:
    """File name by image id; image id and caption by annotation id."""
    try:
        found: Any = json.loads(annotations.read_bytes())
        files = {int(image["id"]): str(image["file_name"]) for image in found["images"]}
        captions = {
            int(row["id"]): (int(row["image_id"]), " ".join(str(row["caption"]).split()))
            for row in found["annotations"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{annotations} is no file of COCO's captions: {error!r}") from error
    if odd := next((name for name in files.values() if Path(name).name != name), None):
        raise ValueError(f"{annotations}: {odd!r} is no name of a file")
    return files, captions


def _listed(ids: Path) -> list[int]:
    try:
        return [int(line) for line in ids.read_text("utf-8").split()]
    except ValueError as error:
        raise ValueError(f"{ids} must hold annotation ids, one a line: {error}") from error


def _of(captions: dict[int, tuple[int, str]], files: dict[int, str], annotation: int, source: Path) -> Chosen:
    if annotation not in captions:
        raise ValueError(f"{source} names annotation {annotation}, which is not among the captions")
    image, caption = captions[annotation]
    if image not in files:
        raise ValueError(f"annotation {annotation} is of image {image}, which is not among the images")
    return Chosen(image, annotation, files[image], caption)
