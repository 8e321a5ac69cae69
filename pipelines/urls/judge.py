"""A shard job that judges one file of a URL list row by row and leaves the hashes that duplicates share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.canonical import all_spelled
from pipelines.urls.duplicates import Neighbours
from pipelines.urls.hashes import PieceWriter
from pipelines.urls.listing import Listing
from pipelines.urls.opt_out import OptOut
from pipelines.urls.rules import Filters, Rule, check_columns, image_hashes, make_rules


@dataclass(frozen=True, kw_only=True)
class Dedup:
    """Which rows count as the same; the first one stays.

    Attributes:
        identity: columns of rows that are the same sample: the URL, or URL and text; none is nobody's twin.
        image: rows of the same `image_phash`; rows without one all stay.
        image_distance: also rows whose `image_phash` differs in at most so many of its 64 bits from that of
            an earlier row, over all files; 0 for none.
    """

    identity: tuple[str, ...] = ("url",)
    image: bool = True
    image_distance: int = 0

    @property
    def name(self) -> str:
        """Of the rule about rows that are the same sample."""
        return "duplicate_url" if self.identity == ("url",) else "duplicate_row"

    @property
    def images(self) -> bool:
        """Whether hashes of images are needed."""
        return self.image or self.image_distance > 0


@dataclass(frozen=True, kw_only=True)
class Judge(ShardJob):
    """Judges rows, each by itself.

    kept-{file}          a bit per row: whether the rules let it stay
    opted-{file}         a bit per row: whether its URL is of those who opted out, if anybody has
    rows-{file}-{piece}, images-{file}-{piece}      see `hashes`

    Who opted out is asked beside the rules: his rows keep their place among the others, as if they stayed.

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
    _listed: list[OptOut] = field(default_factory=list, init=False, repr=False)

    def setup(self) -> None:
        """Make the rules."""
        self._rules[:] = self.rules()
        self._listed[:] = [OptOut(self.opted_out)] if self.opted_out else []

    def rules(self) -> list[Rule]:
        """The rules that look at single rows, in the order in which they apply."""
        held_out = None if self.held_out is None else Neighbours(self.held_out, self.held_out_distance)
        return make_rules(self.filters, held_out=held_out)

    def reads(self) -> list[tuple[str, Sequence[str]]]:
        """Name and columns of each rule, those about duplicates included."""
        rules = self._rules or self.rules()
        reads: list[tuple[str, Sequence[str]]] = [(rule.name, rule.columns) for rule in rules]
        if self.dedup.identity:
            reads.append((self.dedup.name, self.dedup.identity))
        if self.dedup.image:
            reads.append(("duplicate_image", ("image_phash",)))
        if self.dedup.image_distance:
            reads.append(("near_duplicate_image", ("image_phash",)))
        return reads

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        reads = self.reads()
        stats = {f"{kind}/{rule.name}": 0 for rule in self._rules for kind in ("alone", "dropped")}
        same = PieceWriter(out, f"rows-{shard.index:05d}") if self.dedup.identity else None
        images = PieceWriter(out, f"images-{shard.index:05d}") if self.dedup.images else None
        kept, opted = Bits(), Bits()
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
            if same:
                hashes, positions = row_hashes(table, self.dedup.identity)
                same.add(hashes, positions + len(kept))
            if images:
                hashes, positions = image_hashes(table.column("image_phash").to_pylist())
                images.add(hashes, positions + len(kept))
            kept.extend(stay)
            for listed in self._listed:
                opted.extend(np.array([url in listed for url in table.column("url").to_pylist()], bool))
        for pieces in (same, images):
            if pieces:
                pieces.close()
        out.write_bytes(kept_file(shard.index), kept.packed())
        if self._listed:
            out.write_bytes(opted_file(shard.index), opted.packed())
        return {"rows_in": 1, "rows_out": 1, "rows": len(kept), **stats}


def kept_file(index: int) -> str:
    """Name of the bits of a file's rows."""
    return f"kept-{index:05d}"


def opted_file(index: int) -> str:
    """Name of the bits of a file's rows that opted out."""
    return f"opted-{index:05d}"


def row_hashes(table: pa.Table, identity: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of what rows are as uint64 (M,), and the positions (M,) of those whose URL is not empty.

    64 bits: among a billion rows one pair in forty such lists would be taken for equal by chance.
    """
    from pandas.util import hash_array

    present = np.asarray(pc.fill_null(pc.not_equal(table.column("url"), ""), False))
    texts = identities(table.select(list(identity)).filter(pa.array(present)))
    return hash_array(np.asarray(texts.to_numpy(), object), categorize=False), np.flatnonzero(present)


def identities(table: pa.Table) -> pa.ChunkedArray:
    """What each row is: its URL in one spelling, and beside it the text if the table has that column."""
    urls = all_spelled(table.column("url"))
    if "text" not in table.column_names:
        return urls
    return pc.binary_join_element_wise(urls, pc.fill_null(table.column("text"), ""), "\0")
