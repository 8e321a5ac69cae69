import pytest
import torch

from reptok.metrics.frechet import FeatureStatistics, Gaussian, frechet_distance


def gaussian_statistics(mean, covariance):
    """Statistics that hold exactly this mean and covariance."""
    statistics = FeatureStatistics(len(mean))
    statistics.count = 1001
    statistics.shift = torch.tensor(mean, dtype=torch.float64)
    statistics.outer = torch.tensor(covariance, dtype=torch.float64) * 1000
    return statistics


def test_a_set_has_no_distance_to_itself():
    features = torch.randn(300, 24)
    statistics = FeatureStatistics.of(features)
    assert frechet_distance(statistics, statistics) < 1e-9


def test_commuting_gaussians_have_the_closed_form():
    a = gaussian_statistics([0.0, 0.0], [[4.0, 0.0], [0.0, 1.0]])
    b = gaussian_statistics([3.0, 4.0], [[9.0, 0.0], [0.0, 16.0]])
    # |mu|^2 + (2 - 3)^2 + (1 - 4)^2
    assert frechet_distance(a, b) == pytest.approx(25 + 1 + 9, abs=1e-9)


def test_correlated_gaussians_match_the_two_dimensional_formula():
    first, second = [[2.0, 0.7], [0.7, 1.0]], [[1.0, -0.4], [-0.4, 3.0]]
    a, b = gaussian_statistics([0.0, 0.0], first), gaussian_statistics([0.0, 0.0], second)
    product = torch.tensor(first, dtype=torch.float64) @ torch.tensor(second, dtype=torch.float64)
    # The trace of a root of a 2 x 2 matrix M is sqrt(tr M + 2 sqrt(det M)).
    root_trace = float((product.trace() + 2 * product.det().sqrt()).sqrt())
    assert frechet_distance(a, b) == pytest.approx(3 + 4 - 2 * root_trace, abs=1e-9)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), abs=1e-9)


def test_merged_parts_equal_the_whole():
    features = torch.randn(90, 5, dtype=torch.float64) * 3 + 1000
    whole, merged = FeatureStatistics.of(features), FeatureStatistics(5)
    for part in features.split([1, 40, 49]):
        merged.merge(FeatureStatistics.of(part))
    torch.testing.assert_close(merged.mean, features.mean(0))
    torch.testing.assert_close(merged.covariance, torch.cov(features.T))
    torch.testing.assert_close(merged.covariance, whole.covariance)


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_shards_in_any_order_give_one_covariance_and_one_distance(shards):
    """As of one computation over all: covariance to 1e-12 of its size, distance to 1e-9."""
    generator = torch.Generator().manual_seed(shards)
    mixing = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    features = torch.randn(700, 12, dtype=torch.float64, generator=generator) @ mixing + 5
    others = FeatureStatistics.of(torch.randn(300, 12, dtype=torch.float64, generator=generator))
    expected = Gaussian(features.mean(0), torch.cov(features.T))
    parts = [FeatureStatistics.of(part) for part in features.tensor_split(shards)]
    for order in (range(shards), reversed(range(shards)), torch.randperm(shards, generator=generator)):
        merged = FeatureStatistics(12)
        for number in order:
            merged.merge(parts[int(number)])
        error = (merged.covariance - expected.covariance).abs().max() / expected.covariance.abs().max()
        assert error < 1e-12
        distance = frechet_distance(expected, others)
        assert frechet_distance(merged, others) == pytest.approx(distance, rel=1e-9)


def test_a_large_offset_keeps_the_covariance():
    features = torch.randn(500, 3, dtype=torch.float64)
    statistics = FeatureStatistics.of(features + 1e7)
    torch.testing.assert_close(statistics.covariance, torch.cov(features.T), atol=1e-6, rtol=0)


def test_fewer_samples_than_dimensions_stay_real_and_finite():
    a, b = FeatureStatistics.of(torch.randn(10, 64)), FeatureStatistics.of(torch.randn(12, 64))
    assert 0 < frechet_distance(a, b) < 1000


def test_broken_features_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        FeatureStatistics.of(torch.tensor([[float("nan"), 1.0]]))
    with pytest.raises(ValueError, match=r"\(B, 3\)"):
        FeatureStatistics(3).update(torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least 2"):
        _ = FeatureStatistics.of(torch.zeros(1, 4)).covariance
