"""Which rows of files validate: of few files single rows, which is read twice; of many, whole files.

Files that tell their split are of it, if the source tells which rows validate. While a source grows, what
trained never validates (see `reptok.data.keys`), but where its files become `FEW_FILES`: it is split anew
there, since single rows of many files cannot be known before all of them are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from pipelines.sources.source import Part, Span
from reptok.data.keys import MANY_ROWS, at_least, enough_to_validate, key_of, split_of

FEW_FILES = 20


@dataclass(frozen=True)
class Chunk:
    """Rows of a file that follow each other.

    Attributes:
        file: Its name.
        rows: How many, damaged ones included.
        place: Where they are, for `source.Read`, which may find "keep" there as well (see `kept`).
        listed: Gives the keys of those that can be listed.
        split: The one that the source tells; "" for none.
        name: For messages.
    """

    file: str
    rows: int
    place: dict[str, Any]
    listed: Callable[[], Iterable[str]]
    split: str
    name: str


def divided(chunks: Sequence[Chunk], rows: int, val_fraction: float) -> list[Part]:
    """Divide chunks into parts of one split each, those for validation first.

    A chunk for training is a part of its own; what is held out is gathered into parts of `rows` rows.
    """
    drawn = [chunk for chunk in chunks if not chunk.split]
    files = dict.fromkeys(chunk.file for chunk in drawn)
    by_row = len(files) < FEW_FILES
    if not by_row:
        val_fraction = at_least(map(key_of, files), 1, val_fraction)
    elif sum(chunk.rows for chunk in drawn) <= MANY_ROWS:
        keys = list(chain.from_iterable(chunk.listed() for chunk in drawn))
        val_fraction = enough_to_validate(keys, val_fraction)
    val: list[Part] = []
    train: list[Part] = []
    held: list[tuple[Chunk, Span]] = []
    for chunk in chunks:
        split = chunk.split or ("" if by_row else split_of(key_of(chunk.file), val_fraction))
        if split:
            part = Part(chunk.name, split, (Span(chunk.rows, chunk.place),))
            (val if split == "val" else train).append(part)
            continue
        out = sum(split_of(key, val_fraction) == "val" for key in chunk.listed())
        if out:
            held.append((chunk, Span(out, {**chunk.place, "keep": ["val", val_fraction]})))
        if out < chunk.rows:
            place = {**chunk.place, "keep": ["train", val_fraction]} if out else chunk.place
            train.append(Part(chunk.name, "train", (Span(chunk.rows - out, place),)))
    return [*val, *_gathered(held, rows), *train]


def _gathered(held: Sequence[tuple[Chunk, Span]], rows: int) -> Iterator[Part]:
    waiting: list[Span] = []
    for number, (chunk, span) in enumerate(held):
        waiting.append(span)
        if sum(found.rows for found in waiting) >= rows or number == len(held) - 1:
            yield Part(f"held out up to {chunk.name}", "val", tuple(waiting))
            waiting = []


def kept(key: str, place: dict[str, Any]) -> bool:
    """Whether a row belongs to what is read at a place."""
    split, val_fraction = place.get("keep") or ("", 0.0)
    return not split or split_of(key, val_fraction) == split
