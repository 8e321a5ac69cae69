"""Crops of real photographs, split so that validation shares no pixel with training.

Each photograph's frame is scaled to whole blocks of `BLOCK` pixels. Some squares of 2 x 2 blocks, spread over
the frame (`Subject.validation`), are for validation only: a validation crop lies within one of them, a
training crop touches none.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from examples.photographs.subjects import SUBJECTS, Subject

Split = Literal["train", "val"]

BLOCK = 60
VALIDATION_SIDE = 2 * BLOCK
SMALLEST_SIDE, LARGEST_SIDE = 84, 174


class Box(NamedTuple):
    """Half-open pixel rectangle of a scaled photograph."""

    left: int
    top: int
    right: int
    bottom: int

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def photograph_path(subject: Subject) -> Path:
    """Where the installed package keeps the photograph.

    Raises:
        FileNotFoundError: The package is not installed, or does not ship this file.
    """
    spec = importlib.util.find_spec(subject.package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"the photograph of {subject.name!r} comes with the package {subject.package!r}, which is not "
            "installed: install the project with its `pipelines` extra"
        )
    path = Path(spec.submodule_search_locations[0]) / subject.file
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: reinstall the package {subject.package!r}")
    return path


@lru_cache(maxsize=len(SUBJECTS))
def photograph(subject: Subject) -> np.ndarray:
    """The scaled frame, read-only uint8 (rows * BLOCK, columns * BLOCK, 3); grey has three equal channels."""
    rows, columns = grid(subject)
    with Image.open(photograph_path(subject)) as image:
        frame = image.convert("RGB").crop(subject.frame)
        scaled = frame.resize((columns * BLOCK, rows * BLOCK), Image.Resampling.LANCZOS)
    pixels = np.asarray(scaled).copy()
    pixels.setflags(write=False)
    return pixels


def grid(subject: Subject) -> tuple[int, int]:
    """Number of block rows and columns of the frame."""
    left, top, right, bottom = subject.frame
    return subject.rows, round(subject.rows * (right - left) / (bottom - top))


def validation_boxes(subject: Subject) -> tuple[Box, ...]:
    """The squares of 2 x 2 blocks kept for validation, about a sixth of the frame."""
    corners = [(row * BLOCK, column * BLOCK) for row, column in subject.validation]
    return tuple(Box(left, top, left + VALIDATION_SIDE, top + VALIDATION_SIDE) for top, left in corners)


def crop_box(subject: Subject, split: Split, rng: np.random.Generator) -> Box:
    """Draw a crop's rectangle: sides of 84 to 174 pixels (validation: to 120), four in ten oblong."""
    reserved = validation_boxes(subject)
    if split == "val":
        place = reserved[rng.integers(len(reserved))]
        return _box_within(place, _side_lengths(VALIDATION_SIDE, rng), rng)
    rows, columns = grid(subject)
    whole = Box(0, 0, columns * BLOCK, rows * BLOCK)
    while True:
        box = _box_within(whole, _side_lengths(LARGEST_SIDE, rng), rng)
        if not any(box.overlaps(square) for square in reserved):
            return box


def sample_crop(subject: Subject, split: Split, rng: np.random.Generator) -> np.ndarray:
    """Draw a crop as uint8 (height, width, 3), mirrored half of the time where the subject allows it."""
    left, top, right, bottom = crop_box(subject, split, rng)
    pixels = photograph(subject)[top:bottom, left:right]
    if subject.mirrored and rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _side_lengths(largest: int, rng: np.random.Generator) -> tuple[int, int]:
    long = int(rng.integers(SMALLEST_SIDE, largest + 1))
    if rng.random() >= 0.4:
        return long, long
    short = max(SMALLEST_SIDE, round(long * rng.uniform(0.78, 1.0)))
    return (long, short) if rng.random() < 0.5 else (short, long)


def _box_within(place: Box, size: tuple[int, int], rng: np.random.Generator) -> Box:
    height, width = size
    left = int(rng.integers(place.left, place.right - width + 1))
    top = int(rng.integers(place.top, place.bottom - height + 1))
    return Box(left, top, left + width, top + height)
