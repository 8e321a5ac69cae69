"""Equal and near hashes against the plain way: every pair compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.urls import duplicates
from pipelines.urls.bits import Bits
from pipelines.urls.duplicates import HashesOnDisk, Neighbours, masks, near, repeated


def clustered(count: int, seed: int = 0) -> np.ndarray:
    """Hashes of which many differ from another one in few bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    for row in range(count // 2, count):
        hashes[row] = hashes[rng.integers(row)]
        for bit in rng.integers(0, 64, rng.integers(0, 8)):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    return hashes


def on_disk(folder: Path, hashes: np.ndarray) -> HashesOnDisk:
    stored = HashesOnDisk(folder)
    for start in range(0, len(hashes), 77):
        part = hashes[start : start + 77]
        stored.add(part, np.arange(start, start + len(part)))
    return stored


def bits(values: np.ndarray) -> Bits:
    made = Bits()
    for start in range(0, len(values), 13):
        made.extend(values[start : start + 13])
    return made


def union(found: object) -> set[int]:
    return {int(row) for rows in found for row in rows}


@pytest.mark.parametrize("distance", [0, 1, 2, 4])
def test_near_finds_exactly_the_rows_within_the_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: int
) -> None:
    monkeypatch.setattr(duplicates, "WAITING_ROWS", 400)
    hashes = clustered(600)
    alive = np.random.default_rng(1).random(600) < 0.8
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    for living in (None, alive):
        counts = np.ones(600, bool) if living is None else living
        pairs = (apart <= distance) & counts[:, None] & counts[None, :]
        expected = {row for row in range(600) if pairs[row, :row].any()}
        stored = on_disk(tmp_path / f"{living is None}", hashes)
        found = union(near(stored, distance, tmp_path / "near", None if living is None else bits(living)))
        assert found == expected and len(expected) > 20
    assert not (tmp_path / "near").exists()


def test_repeated_finds_all_but_the_first_of_equals(tmp_path: Path) -> None:
    hashes = np.random.default_rng(0).integers(0, 50, 400).astype(np.uint64)
    alive = np.arange(400) % 3 != 0
    expected = {row for row in range(400) if hashes[row] in hashes[:row]}
    assert union(repeated(on_disk(tmp_path / "a", hashes))) == expected
    living = {row for row in range(400) if alive[row] and hashes[row] in hashes[:row][alive[:row]]}
    assert union(repeated(on_disk(tmp_path / "b", hashes), bits(alive))) == living


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
    made.subtract(bits(other))
    assert np.array_equal(made.slice(0, 1001), values & ~other)
