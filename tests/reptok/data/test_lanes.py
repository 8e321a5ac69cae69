"""Lanes: every sample in its turn, and each process in its own part of a large data set."""

import numpy as np
import pytest

from reptok.data import lanes
from reptok.data.lanes import Lanes, number_of_lanes
from reptok.data.order import SampleOrder
from reptok.data.stream import Batches

ROWS = [1000, 1000, 700, 1000, 1000, 900, 1000, 1000]
BATCH = 24


@pytest.fixture(autouse=True)
def small_lanes(monkeypatch):
    monkeypatch.setattr(lanes, "LANE_SAMPLES", 1500)


class Numbers:
    """Samples that are their own numbers."""

    rows = ROWS

    def __init__(self):
        self.fetched = []

    def read(self, samples, flipped, columns=None):
        return samples, flipped

    def fetch(self, samples, flipped, columns=None):
        self.fetched.append(samples)


def test_their_number_follows_from_samples_and_batch():
    assert [number_of_lanes(n, 256) for n in (10, 2999, 3000, 6000, 11_999, 96_000, 10**9)] == [
        1, 1, 2, 4, 4, 64, 64,
    ]  # fmt: skip
    assert number_of_lanes(10**9, 24) == 16


def test_one_lane_is_the_plain_order():
    order, plain = Lanes([500, 400], 7, seed=3, window=200), SampleOrder([500, 400], seed=3, window=200)
    assert all(np.array_equal(a, b) for a, b in zip(order.take(11, 2000), plain.take(11, 2000), strict=True))
    assert order.window_end(250) == plain.window_end(250)


def test_each_lane_gives_all_of_its_samples_in_an_epoch_and_has_none_of_another():
    order = Lanes(ROWS, BATCH, seed=0, window=4000)
    assert len(order.lanes) == 4
    indices, epochs = (found.reshape(-1, 4, BATCH // 4) for found in order.take(0, 1000 * BATCH))
    seen = []
    for lane in range(4):
        own, epoch = indices[:, lane].ravel(), epochs[:, lane].ravel()
        assert abs(len(set(own)) - sum(ROWS) / 4) <= 1000
        for number in (0, 1):
            assert sorted(own[epoch == number]) == sorted(set(own))
        assert not np.array_equal(own[epoch == 0], own[epoch == 1])
        assert (np.diff(sorted(set(own))) == 1).all(), "neighbours on the disk"
        seen += sorted(set(own))
    assert seen == list(range(sum(ROWS)))


def test_the_samples_depend_on_neither_how_they_are_asked_for_nor_on_who_asks():
    whole, epochs = Lanes(ROWS, BATCH, seed=1, window=4000).take(0, 50 * BATCH)
    again = Lanes(ROWS, BATCH, seed=1, window=4000)
    parts = [again.take(start, 37)[0] for start in range(0, 50 * BATCH - 37, 37)]
    assert np.array_equal(np.concatenate(parts), whole[: 37 * len(parts)])
    for processes in (1, 2, 3, 4):
        ranks = [
            Batches(Numbers(), BATCH, 1, rank=rank, world_size=processes, window=4000)
            for rank in range(processes)
        ]
        for step in (0, 7, 49):
            read = [rank.read(step * BATCH) for rank in ranks]
            place = slice(step * BATCH, (step + 1) * BATCH)
            assert np.array_equal(np.concatenate([samples for samples, _ in read]), whole[place])
            flips = again.flips(whole[place], epochs[place])
            assert np.array_equal(np.concatenate([flipped for _, flipped in read]), flips)


def test_a_process_reads_its_part_of_the_data_and_is_told_of_it_before():
    parts = []
    for rank in range(2):
        data = Numbers()
        stream = Batches(data, BATCH, 1, rank=rank, world_size=2, window=4000).stream(0)
        read = np.concatenate([next(stream)[0] for _ in range(400)])
        stream.close()
        assert set(read[len(read) // 20 :]) <= set(np.concatenate(data.fetched))
        parts.append(set(read // 1000))
    assert len(parts[0] & parts[1]) <= 1, "the block where they meet"


def test_what_is_fetched_ahead_is_a_window_of_each_lane_and_not_much_more():
    order = Lanes(ROWS, BATCH, seed=2, window=4000)
    for step in (0, 13, 200):
        end = order.window_end(step * BATCH)
        assert 0 < end - step * BATCH <= 4 * (1000 + 1000) + BATCH and end % BATCH == 0
