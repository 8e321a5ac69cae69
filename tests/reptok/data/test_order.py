import numpy as np
import pytest

from reptok.data.order import SampleOrder


def epoch_of(order: SampleOrder, epoch: int, batch: int = 7) -> np.ndarray:
    start, end = epoch * order.samples, (epoch + 1) * order.samples
    return np.concatenate([order.take(p, min(batch, end - p))[0] for p in range(start, end, batch)])


@pytest.mark.parametrize(
    ("blocks", "window"), [([10], 100), ([5, 3, 4, 6, 2], 8), ([1] * 23, 4), ([7, 0, 5], 3)]
)
def test_every_sample_comes_exactly_once_per_epoch(blocks, window):
    order = SampleOrder(blocks, seed=3, window=window)
    for epoch in range(3):
        assert sorted(epoch_of(order, epoch)) == list(range(sum(blocks)))


def test_the_order_does_not_depend_on_how_it_is_asked():
    order = SampleOrder([50, 50, 31], seed=1, window=60)
    whole, epochs = order.take(0, 400)
    parts = [SampleOrder([50, 50, 31], seed=1, window=60).take(p, 8)[0] for p in range(0, 400, 8)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(epochs, np.arange(400) // 131)


def test_epochs_and_seeds_differ():
    order = SampleOrder([100], seed=0)
    assert not np.array_equal(epoch_of(order, 0), epoch_of(order, 1))
    assert not np.array_equal(epoch_of(order, 0), epoch_of(SampleOrder([100], seed=1), 0))


def test_a_small_set_is_permuted_completely():
    """Samples of the last block come among the first: blocks do not stay together."""
    first = SampleOrder([100] * 10, seed=0).take(0, 100)[0]
    assert len(set(first // 100)) == 10


def test_windows_hold_whole_blocks():
    order = SampleOrder([10] * 10, seed=0, window=30)
    windows = [set(epoch_of(order, 0)[start : start + 30] // 10) for start in (0, 30)]
    assert [len(window) for window in windows] == [3, 3]
    assert not windows[0] & windows[1]


def test_flips_are_fair_and_change_with_the_epoch():
    order, samples = SampleOrder([10_000], seed=5), np.arange(10_000)
    first, second = (order.flips(samples, np.full(10_000, epoch)) for epoch in (0, 1))
    assert abs(first.mean() - 0.5) < 0.02
    assert abs((first == second).mean() - 0.5) < 0.02
    assert np.array_equal(order.flips(samples[7:9], np.zeros(2, np.int64)), first[7:9])


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="no sample"):
        SampleOrder([0, 0], seed=0)
