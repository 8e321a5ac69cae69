"""One pass over a URL list: which rows stay, and how many each rule drops alone and in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.urls.bits import Bits
from pipelines.urls.duplicates import HashesOnDisk, near, repeated
from pipelines.urls.rules import Rule, check_columns, image_hashes


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """Which rows count as the same; the first one stays.

    Attributes:
        url: rows of the same URL.
        image: rows of the same `image_phash`; rows without one all stay.
        image_distance: also rows whose `image_phash` differs in at most so many of its 64 bits from that of
            an earlier row, over all files; 0 for none.
    """

    url: bool = True
    image: bool = True
    image_distance: int = 0


@dataclass
class Drops:
    """What one rule drops: as the only rule, and of the rows that the rules before it left."""

    rule: str
    threshold: Any
    alone: int = 0
    dropped: int = 0


class Survey:
    """Judges tables as they stream by; memory holds one bit per row, the disk 16 bytes per hash.

    Args:
        rules: judged row by row.
        dedup: judged at the end.
        folder: for the hashes; a local one, emptied when the survey is over.
    """

    def __init__(self, rules: Sequence[Rule], dedup: Dedup, folder: Path) -> None:
        self._rules, self._dedup, self._folder = rules, dedup, folder
        self.drops = [Drops(rule.name, rule.threshold) for rule in rules]
        self.alive = Bits()
        self.rows = 0
        self.sources: dict[str, int] = {}
        self._urls = HashesOnDisk(folder / "urls") if dedup.url else None
        reads_images = dedup.image or dedup.image_distance
        self._images = HashesOnDisk(folder / "images") if reads_images else None

    @property
    def columns(self) -> set[str]:
        """What tables must have; the rest need not be read."""
        return {column for _, reads in self._reads() for column in reads}

    def add(self, source: str, table: pa.Table) -> None:
        """Judge the next rows, of the file `source`."""
        if source not in self.sources:
            check_columns(self._reads(), table.column_names, source)
        self.sources[source] = self.sources.get(source, 0) + table.num_rows
        stay = np.ones(table.num_rows, bool)
        for rule, drops in zip(self._rules, self.drops, strict=True):
            keep = rule(table)
            drops.alone += int((~keep).sum())
            drops.dropped += int((stay & ~keep).sum())
            stay &= keep
        self.alive.extend(stay)
        if self._urls:
            urls = [(row, url) for row, url in enumerate(table.column("url").to_pylist(), self.rows) if url]
            digests = np.array([_digest(url) for _, url in urls], np.uint64)
            self._urls.add(digests, np.array([row for row, _ in urls], np.int64))
        if self._images:
            hashes, positions = image_hashes(table.column("image_phash").to_pylist())
            self._images.add(hashes, positions + self.rows)
        self.rows += table.num_rows

    def finish(self) -> None:
        """Judge the duplicates; then `alive` says which rows stay and `drops` is complete."""
        dedup, urls, images = self._dedup, self._urls, self._images
        if urls:
            self._drop_repeats("duplicate_url", None, lambda alive: repeated(urls, alive))
            urls.remove()
        if images and dedup.image:
            self._drop_repeats("duplicate_image", None, lambda alive: repeated(images, alive))
        if images and dedup.image_distance:
            sorting = self._folder / "near"
            self._drop_repeats(
                "near_duplicate_image",
                dedup.image_distance,
                lambda alive: near(images, dedup.image_distance, sorting, alive),
            )
        if images:
            images.remove()

    def _drop_repeats(
        self, rule: str, threshold: Any, find: Callable[[Bits | None], Iterator[np.ndarray]]
    ) -> None:
        """Apply a rule that compares rows: every row counts alone, only living ones in order."""
        alone = Bits()
        alone.extend(np.zeros(self.rows, bool))
        for rows in find(None):
            alone.set(rows)
        doomed = Bits()
        doomed.extend(np.zeros(self.rows, bool))
        for rows in find(self.alive):
            doomed.set(rows)
        self.alive.subtract(doomed)
        self.drops.append(Drops(rule, threshold, alone.total(), doomed.total()))

    def _reads(self) -> list[tuple[str, tuple[str, ...]]]:
        reads = [(rule.name, rule.columns) for rule in self._rules]
        if self._urls:
            reads.append(("duplicate_url", ("url",)))
        if self._dedup.image:
            reads.append(("duplicate_image", ("image_phash",)))
        if self._dedup.image_distance:
            reads.append(("near_duplicate_image", ("image_phash",)))
        return reads


def _digest(url: str) -> int:
    """64 bits: among a billion URLs one pair in forty such lists would be taken for equal by chance."""
    return int.from_bytes(hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=8).digest())
