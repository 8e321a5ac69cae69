"""Equal and near hashes against the plain way: every pair compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.workspace import Workspace
from pipelines.urls import hashes as hashes_module
from pipelines.urls.bits import Bits
from pipelines.urls.duplicates import Neighbours, masks, near, repeated
from pipelines.urls.hashes import HASHED, PARTS, Pieces, PieceWriter
from pipelines.urls.judge import Dedup, Judge
from pipelines.urls.rules import Filters
from pipelines.urls.scan import Drops, scan


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Hashes of which many differ from another one in few bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    for row in range(count // 2, count):
        hashes[row] = hashes[rng.integers(row)]
        for bit in rng.integers(0, 64, rng.integers(0, 8)):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    return hashes


def bits(values: np.ndarray) -> Bits:
    made = Bits()
    for start in range(0, len(values), 13):
        made.extend(values[start : start + 13])
    return made


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[int], list[Drops]]]:
    """Judge hashes as a list in three files: the rows that stay, and what each rule drops.

    Parts hold so few rows that there are many of them.
    """
    monkeypatch.setattr(hashes_module, "ROWS_AT_ONCE", 50)
    folders = count()

    class Files:
        def __init__(self, values: np.ndarray, alive: np.ndarray) -> None:
            self.files = list(zip(np.array_split(values, 3), np.array_split(alive, 3), strict=True))

        def tables(self, file: Mapping[str, Any], only: object) -> Iterator[pa.Table]:
            values, alive = self.files[file["number"]]
            for start in range(0, len(values), 77):
                part = slice(start, start + 77)
                texts = [f"{value:016x}" for value in values[part].tolist()]
                yield pa.table({"url": ["u"] * len(texts), "image_phash": texts, "width": alive[part] * 9})

    def judged(
        values: np.ndarray, alive: np.ndarray, distance: int, equal: bool = True
    ) -> tuple[list[int], list[Drops]]:
        judge = Judge(
            listing=Files(values, alive),
            filters=Filters(min_width=1),
            dedup=Dedup(identity=(), image=equal, image_distance=distance),
        )
        place = Workspace(str(tmp_path / str(next(folders))))
        files = [Shard(number, f"list-{number}", 1, {"number": number}) for number in range(3)]
        found = scan(files, judge, place, partial(map_shards, here=True))
        assert not [name for name in place.folder.children() if name.startswith("near")], (
            "what it sorted is gone"
        )
        return np.flatnonzero(found.alive.slice(0, len(values))).tolist(), found.drops

    return judged


@pytest.mark.parametrize(("distance", "equal"), [(1, True), (2, False), (4, True)])
def test_exactly_the_rows_within_the_distance_of_an_earlier_one_go(
    search: Callable[..., tuple[list[int], list[Drops]]], distance: int, equal: bool
) -> None:
    values = clustered(600)
    values[::7] = values[::7][0]  # a hash that many rows have
    alive = np.random.default_rng(1).random(600) < 0.8
    apart = np.bitwise_count(values[:, None] ^ values[None, :])
    earlier = np.tri(600, k=-1, dtype=bool)
    same = (apart == 0) & earlier & alive[:, None] & alive[None, :]
    left = alive & ~same.any(1) if equal else alive
    lost = left & ((apart <= distance) & earlier & left[None, :]).any(1)
    stay, drops = search(values, alive, distance, equal)
    assert stay == np.flatnonzero(left & ~lost).tolist()
    counts = {drop.rule: (drop.alone, drop.dropped) for drop in drops}
    assert counts.pop("near_duplicate_image") == (
        int(((apart <= distance) & earlier).any(1).sum()),
        int(lost.sum()),
    )
    if equal:
        assert counts["duplicate_image"] == (
            int(((apart == 0) & earlier).any(1).sum()),
            int(same.any(1).sum()),
        )
    assert lost.sum() > 10


def test_equal_hashes_cost_no_more_than_different_ones() -> None:
    """A million rows of one hash are one entry to compare: none is left for the pairs."""
    rows = np.arange(1_000_000)
    again, firsts = repeated(np.zeros(1_000_000, np.uint64), rows, rows % 2 == 1)
    assert np.array_equal(again, rows[3::2])  # of those that are left, all but row 1
    assert firsts.tolist() == [(0, 0, 1)]
    assert [found.tolist() for found in near(firsts, masks(4)[0], 4)] == [[], []]


def test_a_piece_gives_back_what_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes_module, "ROWS_AT_ONCE", 40)
    out = Workspace(str(tmp_path))
    values = np.random.default_rng(0).integers(0, 2**64, 100, np.uint64)
    writer = PieceWriter(out, "x")
    for start in range(0, 100, 15):
        writer.add(values[start : start + 15], np.arange(start, min(100, start + 15)))
    writer.close()
    assert out.files() == ["x-000", "x-001", "x-002"]
    pieces = Pieces(out.folder, out.files(), HASHED)
    groups = pieces.groups()
    assert [a for a, _ in groups[1:]] == [b for _, b in groups[:-1]] and groups[-1][1] == PARTS
    read = np.concatenate([entry for group in groups for entry in pieces.read(*group)])
    assert dict(zip(read["row"].tolist(), read["hash"].tolist(), strict=True)) == dict(
        enumerate(values.tolist())
    )
    assert len(groups) > 2 and all(sum(map(len, pieces.read(*group))) <= 40 for group in groups)


@pytest.mark.parametrize("distance", [0, 2, 4])
def test_neighbours_are_those_within_the_distance_of_a_known_hash(distance: int) -> None:
    hashes = clustered(500, seed=2)
    known, asked = hashes[:200], hashes[200:]
    expected = (np.bitwise_count(asked[:, None] ^ known[None, :]) <= distance).any(1)
    assert np.array_equal(Neighbours(known, distance)(asked), expected)
    assert 0 < expected.sum() < len(asked)


def test_a_distance_beyond_the_tables_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 6"):
        masks(7)


def test_bits_are_what_was_set() -> None:
    values = np.random.default_rng(3).random(1001) < 0.3
    made = bits(values)
    assert np.array_equal(made.slice(0, 1001), values) and made.total() == values.sum()
    other = np.random.default_rng(4).random(1001) < 0.5
    assert np.array_equal(made.slice(13, 700), values[13:700])
    again = Bits(made.packed(), 1001)
    again.extend(other)
    assert np.array_equal(again.slice(0, 2002), np.concatenate([values, other]))
    made.subtract(bits(other))
    assert np.array_equal(made.slice(0, 1001), values & ~other)
