"""Filter duplicates: the same picture, or nearly the same, under an earlier key.

Within a table of images the filter decides by itself, so that tables need not wait for each other. Twins in
different tables are found when all tables are judged (see `twins`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Self

import numpy as np
from annotated_types import Interval

from pipelines.filters.filter import Filter, Finding, Row
from pipelines.urls.duplicates import MAX_DISTANCE

EXACT, NEAR = "duplicate", "near_duplicate"
SCORE = "nearest_distance"


@dataclass(frozen=True, kw_only=True)
class Duplicates(Filter):
    """Drop a picture if an earlier one of its table that is kept is the same, or nearly.

    Attributes:
        distance: Bits of 64 in which the perceptual hashes of such pictures may differ; null drops
            only files that are equal byte for byte.
    """

    reads: ClassVar[tuple[str, ...]] = ("sha256", "phash")
    scores: ClassVar[tuple[str, ...]] = (SCORE,)

    distance: Annotated[int, Interval(ge=0, le=MAX_DISTANCE)] | None = 2

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The largest distance of nearly equal pictures."""
        return {} if self.distance is None else {SCORE: self.distance}

    def fresh(self) -> Self:
        """Forget the table before."""
        again = replace(self)
        object.__setattr__(again, "_kept", _Kept())
        return again

    def hash_of(self, row: Row) -> int | None:
        """64 bits that twins share, but for `distance` of them."""
        found = row["sha256"] if self.distance is None else row["phash"]
        return int(found[:16], 16) if found else None

    def judge(self, row: Row) -> Finding:
        """Compare a picture with those that were kept; remember it if it is kept, too."""
        if not row["sha256"] or not row["phash"]:
            return Finding()
        kept: _Kept = self._kept  # type: ignore[attr-defined]
        distance, near = (None, None) if self.distance is None else kept.nearest(int(row["phash"], 16))
        scores = {} if distance is None else {SCORE: distance}
        if (twin := kept.files.get(row["sha256"])) is not None:
            return Finding(scores=scores, reason=EXACT, detail=twin)
        if distance is not None and self.distance is not None and distance <= self.distance:
            return Finding(scores=scores, reason=NEAR, detail=near)
        kept.add(row)
        return Finding(scores=scores)


class _Kept:
    """What was kept of a table so far."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self._keys: list[str] = []
        self._hashes = np.empty(1024, np.uint64)

    def nearest(self, phash: int) -> tuple[int, str] | tuple[None, None]:
        """Distance and key of the nearest hash, the earliest of several; None of nothing."""
        if not self._keys:
            return None, None
        bits = np.bitwise_count(self._hashes[: len(self._keys)] ^ np.uint64(phash))
        place = int(bits.argmin())
        return int(bits[place]), self._keys[place]

    def add(self, row: Row) -> None:
        if len(self._keys) == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[len(self._keys)] = int(row["phash"], 16)
        self._keys.append(row["key"])
        self.files[row["sha256"]] = row["key"]


def duplicates_of(filters: Mapping[str, Filter]) -> Duplicates | None:
    """The filter that drops duplicates, if it is among these."""
    return next((found for found in filters.values() if isinstance(found, Duplicates)), None)
