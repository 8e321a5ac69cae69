"""Filter listed_hash: is it the picture that was listed, or what its place shows today?

Years after a list was made, a part of its URLs lead to placeholders, to the pages of those who bought the
domain, or to other pictures. A list that has perceptual hashes, as COYO's `image_phash`, tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from pipelines.filters.filter import Filter, Finding, Row

REASON = "not_as_listed"
SCORE = "listed_distance"


@dataclass(frozen=True, kw_only=True)
class ListedHash(Filter):
    """Drop pictures whose perceptual hash is far from the list's; where there is none to compare, they stay.

    The hash is of the whole picture, which the download takes before it crops
    (`download.resize.hash_whole`).

    Attributes:
        max_distance: Bits of 64 in which the hashes may differ. A hundred crops of four pictures, resized and
            compressed anew, differed in 4 at most; of different pictures in 20 at least.
    """

    reads: ClassVar[tuple[str, ...]] = ("image_phash", "whole_phash")
    scores: ClassVar[tuple[str, ...]] = (SCORE,)

    max_distance: Annotated[int, Interval(ge=0, le=64)] = 12

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The largest distance that is borne."""
        return {SCORE: self.max_distance}

    def judge(self, row: Row) -> Finding:
        """Compare two hashes."""
        listed, found = row["image_phash"], row["whole_phash"]
        if not listed or not found:
            return Finding()
        distance = (int(listed, 16) ^ int(found, 16)).bit_count()
        return Finding(scores={SCORE: distance}, reason=REASON if distance > self.max_distance else None)
