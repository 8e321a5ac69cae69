"""A shard job that judges one file of a URL list row by row and leaves the hashes that duplicates share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.duplicates import Neighbours
from pipelines.urls.hashes import PieceWriter
from pipelines.urls.listing import Listing
from pipelines.urls.rules import Filters, Rule, check_columns, image_hashes, make_rules


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

    @property
    def images(self) -> bool:
        """Whether hashes of images are needed."""
        return self.image or self.image_distance > 0


@dataclass(frozen=True, kw_only=True)
class Judge(ShardJob):
    """Judges rows, each by itself.

    kept-{file}          a bit per row: whether the rules let it stay
    urls-{file}-{piece}, images-{file}-{piece}      see `hashes`

    The stats hold "rows", and "alone/{rule}" and "dropped/{rule}": the rows that a rule drops as the only
    one, and of those that the rules before it left. What is counted in as a row is the file.

    Attributes:
        listing: where rows come from.
        filters: bounds on columns.
        dedup: which hashes are needed.
        opted_out: URLs and hosts that are not wanted.
        held_out: uint64 (N,), hashes of images that must stay unseen; None for none.
        held_out_distance: bits at which an image counts as one of those.
    """

    listing: Listing
    filters: Filters
    dedup: Dedup
    opted_out: Sequence[str] = ()
    held_out: np.ndarray | None = None
    held_out_distance: int = 0
    _rules: list[Rule] = field(default_factory=list, init=False, repr=False)

    def setup(self) -> None:
        """Make the rules."""
        self._rules[:] = self.rules()

    def rules(self) -> list[Rule]:
        """The rules that look at single rows, in the order in which they apply."""
        held_out = None if self.held_out is None else Neighbours(self.held_out, self.held_out_distance)
        return make_rules(self.filters, opted_out=self.opted_out, held_out=held_out)

    def reads(self) -> list[tuple[str, Sequence[str]]]:
        """Name and columns of each rule, those about duplicates included."""
        rules = self._rules or self.rules()
        reads: list[tuple[str, Sequence[str]]] = [(rule.name, rule.columns) for rule in rules]
        if self.dedup.url:
            reads.append(("duplicate_url", ("url",)))
        if self.dedup.image:
            reads.append(("duplicate_image", ("image_phash",)))
        if self.dedup.image_distance:
            reads.append(("near_duplicate_image", ("image_phash",)))
        return reads

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        reads = self.reads()
        stats = {f"{kind}/{rule.name}": 0 for rule in self._rules for kind in ("alone", "dropped")}
        urls = PieceWriter(out, f"urls-{shard.index:05d}") if self.dedup.url else None
        images = PieceWriter(out, f"images-{shard.index:05d}") if self.dedup.images else None
        kept = Bits()
        checked = False
        for table in self.listing.tables(shard.payload, {column for _, names in reads for column in names}):
            if not checked:
                check_columns(reads, table.column_names, shard.name)
                checked = True
            stay = np.ones(table.num_rows, bool)
            for rule in self._rules:
                keep = rule(table)
                stats[f"alone/{rule.name}"] += int((~keep).sum())
                stats[f"dropped/{rule.name}"] += int((stay & ~keep).sum())
                stay &= keep
            if urls:
                hashes, positions = url_hashes(table.column("url"))
                urls.add(hashes, positions + len(kept))
            if images:
                hashes, positions = image_hashes(table.column("image_phash").to_pylist())
                images.add(hashes, positions + len(kept))
            kept.extend(stay)
        for pieces in (urls, images):
            if pieces:
                pieces.close()
        out.write_bytes(kept_file(shard.index), kept.packed())
        return {"rows_in": 1, "rows_out": 1, "rows": len(kept), **stats}


def kept_file(index: int) -> str:
    """Name of the bits of a file's rows."""
    return f"kept-{index:05d}"


def url_hashes(urls: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of URLs as uint64 (M,), and the positions (M,) of those that are not empty.

    64 bits: among a billion URLs one pair in forty such lists would be taken for equal by chance.
    """
    from pandas.util import hash_array

    present = np.asarray(pc.fill_null(pc.not_equal(urls, ""), False))
    values: Any = urls.filter(pa.array(present)).to_numpy()
    return hash_array(values.astype(object), categorize=False), np.flatnonzero(present)
