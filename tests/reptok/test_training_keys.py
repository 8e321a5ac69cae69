"""A model says which samples it was trained on: exactly of few, by an even choice of many."""

import hashlib

import numpy as np
import pytest

from reptok.training_keys import ALL, FILE, TrainingKeys


def keys(start, stop):
    return [f"{number:x}" for number in range(start, stop)]


def read(found, folder):
    (folder / FILE).write_bytes(found.as_bytes())
    return TrainingKeys.read(folder)


def test_of_few_samples_every_one_is_known(tmp_path):
    found = read(TrainingKeys.of([keys(0, 300), keys(300, 500)], "abc", started_from="a/b"), tmp_path)
    assert found.started_from == "a/b"
    assert (found.dataset, found.samples, len(found.hashes), found.bound) == ("abc", 500, 500, ALL)
    overlap = found.overlap(keys(490, 520))
    assert (overlap.images, overlap.compared, overlap.known) == (30, 30, 10)


@pytest.mark.parametrize("part", [7, 1000])
def test_of_many_an_even_choice_is_whatever_their_order(part, tmp_path):
    """Of 10,000 a tenth is held: of 2,000 others about 200 can be compared, and the shared half is known."""
    whole = keys(0, 10_000)
    mixed = [whole[number] for number in np.random.default_rng(0).permutation(10_000)]
    parts = [mixed[start : start + part] for start in range(0, 10_000, part)]
    found = read(TrainingKeys.of(parts, "abc", limit=1000), tmp_path)
    assert len(found.hashes) == 1000 and found.samples == 10_000
    assert np.array_equal(found.hashes, TrainingKeys.of([whole], "abc", limit=1000).hashes)
    overlap = found.overlap(keys(9_000, 11_000))
    assert 150 < overlap.compared < 250
    held = found.overlap(keys(9_000, 10_000))
    assert overlap.known == held.known == held.compared > 60
    assert found.overlap(keys(10_000, 20_000)).known == 0


def test_no_record_and_a_damaged_one_are_told_apart(tmp_path):
    assert TrainingKeys.read(tmp_path) is None
    (tmp_path / FILE).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(ValueError, match="no record of training keys"):
        TrainingKeys.read(tmp_path)


def test_equal_names_of_other_pictures_are_no_overlap(tmp_path):
    """`1.jpg` of two folders: of some training samples the look is known, 64 bits of it."""
    names = [f"{number}.jpg" for number in range(100)]
    looks = {name: int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) for name in names}
    found = read(TrainingKeys.of([names], "abc", looks={name: looks[name] for name in names[::2]}), tmp_path)
    asked = []

    def those(change):
        def look(positions):
            asked.append(positions)
            return [change(number, looks[names[number]]) for number in positions]

        return look

    overlap = found.overlap([*names[:10], "x"], those(lambda _, look: look ^ ALL))
    assert (overlap.images, overlap.known, overlap.namesakes) == (11, 0, 10)
    assert asked == [[0, 2, 4, 6, 8]]
    resized = found.overlap(names[:10], those(lambda _, look: look ^ 0b1001011))
    assert (resized.known, resized.namesakes) == (10, 0), "of the same source"
    partly = found.overlap(names[:10], those(lambda number, look: look ^ (ALL if number == 4 else 0)))
    assert (partly.known, partly.namesakes) == (9, 1), "a picture was replaced"
    unknown = found.overlap(names[1:10:2], those(lambda _, look: look ^ ALL))
    assert (unknown.known, unknown.namesakes) == (5, 0), "nobody looked at these"
