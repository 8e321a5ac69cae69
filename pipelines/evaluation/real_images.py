"""The real images of an evaluation: what samples are held against, and what is reconstructed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.dag.reference import required
from pipelines.dag.shards import Shard
from reptok.bounds import Count, Whole

if TYPE_CHECKING:
    from reptok.metrics.sample_files import ImageSet


@dataclass(frozen=True, kw_only=True)
class RealImagesConfig:
    """Which they are.

    Attributes:
        path: an `.npz` or a `.tar`, or a folder of pictures.
        crop: how a picture becomes a square: a name of `reptok.data.images.CROPS`.
        side: of the square in pixels; 0 where they are squares of one size already.
        images: how many of them, from the first; 0 for all.
        rows_per_shard: images of one shard of work.
    """

    path: str = field(default="", metadata={"reference": "images"})
    crop: str = "centre"
    side: Whole = 0
    images: Whole = 0
    rows_per_shard: Count = 500

    @property
    def place(self) -> Path:
        """Where they lie.

        Raises:
            FileNotFoundError: they do not.
        """
        return required(self.path, "evaluate.scores.reference")

    def open(self) -> ImageSet:
        """Raises as `open_images`."""
        from reptok.metrics.sample_files import open_images

        return open_images(self.place, self.crop, self.side or None)

    def shards(self, name: str) -> list[Shard]:
        """Those that are wanted, as shards of a job."""
        there = len(self.open())
        if self.images > there:
            raise ValueError(f"{self.images:,} real images are wanted, and {self.place} holds {there:,}")
        return ranges(name, self.images or there, self.rows_per_shard)


def ranges(name: str, rows: int, per_shard: int) -> list[Shard]:
    """So many rows as shards, whose payloads have `start` and `stop`."""
    return [
        Shard(i, f"{name}-{i:05d}", min(per_shard, rows - start),
              {"start": start, "stop": min(start + per_shard, rows)})
        for i, start in enumerate(range(0, rows, per_shard))
    ]  # fmt: skip
