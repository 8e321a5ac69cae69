import math

import pytest
import torch

from reptok.metrics.frechet import FeatureStatistics, Gaussian, frechet_distance
from reptok.metrics.uncertainty import Estimate, frechet_without_bias, mean, over_seeds, paired_difference


def test_a_mean_and_its_error_by_hand():
    found = mean(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert found.value == 3
    assert found.error == pytest.approx(math.sqrt(14 / 3) / 2)
    assert math.isnan(mean(torch.tensor([1.0])).error)
    with pytest.raises(ValueError, match="needs values"):
        mean(torch.zeros(0))


def test_what_images_share_cancels_in_a_paired_difference():
    torch.manual_seed(0)
    hard = 10 * torch.randn(200, dtype=torch.float64)
    ours, theirs = hard + 0.5 + 0.01 * torch.randn(200), hard
    found = paired_difference(ours, theirs)
    assert found.value == pytest.approx(0.5, abs=0.01)
    assert found.error < 0.002 < mean(ours).error
    with pytest.raises(ValueError, match="same images"):
        paired_difference(ours, theirs[1:])


def test_seeds_make_the_error_of_a_sets_score():
    found = over_seeds([3.0, 5.0], images=500)
    assert (found.value, found.error, found.images) == (4.0, 1.0, 500)


def test_a_distance_loses_the_bias_of_its_number():
    """Samples of the reference's own distribution: the truth is 0, and 600 images give more."""
    torch.manual_seed(0)
    unit = Gaussian(torch.zeros(32, dtype=torch.float64), torch.eye(32, dtype=torch.float64))
    features = torch.randn(600, 32)
    biased = frechet_distance(FeatureStatistics.of(features), unit)
    found = frechet_without_bias(features, unit)
    assert biased > 0.4
    assert abs(found.value) < biased / 4
    shifted = frechet_without_bias(features + 1, unit)
    assert shifted.value == pytest.approx(32, abs=2), "a true distance stays"
    assert 0 < found.error < biased


def test_too_few_samples_make_no_line():
    unit = Gaussian(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="too few"):
        frechet_without_bias(torch.randn(3, 2), unit)


@pytest.mark.parametrize(
    ("estimate", "shown"),
    [
        (Estimate(18.3149, 0.123, 500), "18.31 ± 0.12 (N = 500)"),
        (Estimate(3.94321, math.nan, 50_000), "3.94 ± nan (N = 50,000)"),
        (Estimate(215.84, 3.2, 10), "215.8 ± 3.2 (N = 10)"),
        (Estimate(812.4, 42.0, 10), "812 ± 42 (N = 10)"),
    ],
)
def test_as_many_digits_as_the_error_allows(estimate, shown):
    assert str(estimate) == shown
