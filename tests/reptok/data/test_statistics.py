"""Running moments equal the moments of all vectors at once, however they came."""

import numpy as np
import pytest

from reptok.data.statistics import RunningMoments


@pytest.mark.parametrize("groups", [[100], [1] * 100, [60, 0, 40]])
def test_grouping_does_not_matter(groups):
    vectors = np.random.default_rng(0).normal(10, 0.01, (100, 2, 3)).astype(np.float32)
    moments, start = RunningMoments.empty(3), 0
    for rows in groups:
        moments.update(vectors[start : start + rows])
        start += rows
    flat = vectors.reshape(-1, 3).astype(np.float64)
    assert moments.count == 200
    np.testing.assert_allclose(moments.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, flat.std(0), rtol=1e-6)


def test_merged_parts_are_the_whole():
    vectors = np.arange(12.0).reshape(4, 3)
    one, two = RunningMoments.empty(3), RunningMoments.empty(3)
    one.update(vectors[:1])
    two.update(vectors[1:])
    one.merge(two)
    np.testing.assert_allclose(one.mean, [4.5, 5.5, 6.5])
    np.testing.assert_allclose(one.std, vectors.std(0))
