"""Shard jobs that find duplicates in the hashes which judging a list has left, some parts at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.storage import open_folder
from pipelines.dag.workspace import Workspace
from pipelines.urls.bits import Bits
from pipelines.urls.duplicates import near, repeated
from pipelines.urls.hashes import FIRSTS, HASHED, Pieces, write_piece

ROW = np.dtype("<i8")


@dataclass(frozen=True)
class Pile:
    """Pieces on storage that belong together.

    Attributes:
        url: their folder.
        names: their files.
        kind: what an entry is.
    """

    url: str
    names: Sequence[str]
    kind: np.dtype

    def open(self) -> Pieces:
        """Read the pieces' heads."""
        return Pieces(open_folder(self.url), self.names, self.kind)


@dataclass(frozen=True, kw_only=True)
class PartsJob(ShardJob):
    """A job whose shard is a range of parts of a pile (the payload's "parts").

    Attributes:
        pile: where the hashes lie.
    """

    pile: Pile
    _opened: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def setup(self) -> None:
        """Open the pile."""
        self._opened["pieces"] = self.pile.open()

    def shards(self) -> list[Shard]:
        """Ranges of parts that fit into memory together."""
        groups = self.pile.open().groups()
        return [Shard(i, f"parts-{i:05d}", 1, {"parts": list(parts)}) for i, parts in enumerate(groups)]

    def read(self, shard: Shard) -> list[np.ndarray]:
        """The shard's entries by piece."""
        found: list[np.ndarray] = self._opened["pieces"].read(*shard.payload["parts"])
        return found


@dataclass(frozen=True, kw_only=True)
class FindRepeats(PartsJob):
    """Finds the rows that are left although an earlier such row has their hash.

    rows-{shard}      those rows, int64
    firsts-{shard}    a piece of the different hashes, if asked for

    The stats hold "repeated", the rows of which an earlier one has the hash, be it left or not, and "found".

    Attributes:
        begins: of each piece, the row of the list with which its file begins.
        alive: URL of the folder, and name of the file of bits that say which rows of the list are left.
        rows: of the list.
        firsts: leave the different hashes.
    """

    begins: Sequence[int]
    alive: tuple[str, str]
    rows: int
    firsts: bool

    def setup(self) -> None:
        """Read which rows are left, too."""
        super().setup()
        url, name = self.alive
        self._opened["alive"] = Bits(open_folder(url).read_bytes(name), self.rows)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        pieces = self.read(shard)
        entries = np.concatenate([np.empty(0, HASHED), *pieces])
        begins = np.repeat(np.array(self.begins, ROW), [len(piece) for piece in pieces])
        rows = entries["row"] + begins
        again, firsts = repeated(entries["hash"], rows, self._opened["alive"].at(rows))
        out.write_bytes(f"rows-{shard.index:05d}", again.astype(ROW).tobytes())
        if self.firsts:
            write_piece(out, f"firsts-{shard.index:05d}", firsts)
        return {"rows_in": 1, "rows_out": 1, "repeated": len(entries) - len(firsts), "found": len(again)}


@dataclass(frozen=True, kw_only=True)
class SortFirsts(PartsJob):
    """Divides different hashes anew, so that those which agree in a mask's bits share a part.

    firsts-{shard}    a piece

    Attributes:
        mask: the bits.
    """

    mask: int

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        entries = np.concatenate([np.empty(0, FIRSTS), *self.read(shard)])
        write_piece(out, f"firsts-{shard.index:05d}", entries, np.uint64(self.mask))
        return {"rows_in": 1, "rows_out": 1}


@dataclass(frozen=True, kw_only=True)
class FindNear(PartsJob):
    """Finds the first rows of hashes that are near an earlier row's, among those that agree in some bits.

    any-{shard}, left-{shard}     rows, int64: all rows counting, and those that are left; some come twice

    Attributes:
        masks: the bits; of several masks the pile has one range of parts.
        distance: in bits.
    """

    masks: Sequence[int]
    distance: int

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        entries = np.concatenate([np.empty(0, FIRSTS), *self.read(shard)])
        found, lost = zip(*(near(entries, np.uint64(m), self.distance) for m in self.masks), strict=True)
        out.write_bytes(f"any-{shard.index:05d}", np.concatenate(found).astype(ROW).tobytes())
        out.write_bytes(f"left-{shard.index:05d}", np.concatenate(lost).astype(ROW).tobytes())
        return {"rows_in": 1, "rows_out": 1}
