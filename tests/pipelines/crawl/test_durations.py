"""Durations as counts: sums over shards, and percentiles that are at most 12 % too long."""

import numpy as np
import pytest

from pipelines.crawl.durations import counted, percentile, together


def test_classes_hold_what_is_not_longer_than_they_say():
    assert counted([0.0, 0.0, 0.1, 0.89, 0.9, 0.99, 1.0, 1.01, 10.0]) == {
        "0": 2, "0.1": 1, "0.891": 1, "1": 3, "1.12": 1, "10": 1,
    }  # fmt: skip


def test_shards_add_up_in_any_order():
    values = np.random.default_rng(0).lognormal(-1, 1.5, 1000)
    whole = counted(values)
    assert together([counted(values[:300]), {}, counted(values[300:])]) == whole
    assert together([counted(values[300:]), counted(values[:300])]) == whole
    assert sum(whole.values()) == 1000


@pytest.mark.parametrize("percent", [1, 50, 95, 99, 100])
def test_a_percentile_is_that_of_the_values_rounded_up(percent):
    values = np.random.default_rng(1).lognormal(-1, 1.5, 5000)
    true = np.percentile(values, percent, method="inverted_cdf")
    assert true * 0.999 <= percentile(counted(values), percent) <= true * 1.13
    assert percentile({}, percent) == 0.0
