"""Distances in those of real images: one for real ones, of no scale, and one figure for several networks."""

import math

import pytest
import torch

from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.ratio import Halves, over_networks
from reptok.metrics.uncertainty import Estimate


def drawn(number, seed, shift=0.0, width=4):
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed)) + shift


def ratio(samples, real):
    return Halves(real).ratio(samples)


def test_the_halves_are_all_of_the_real_images_and_as_far_apart_as_their_statistics():
    real = drawn(41, 0)
    halves = Halves(real)
    assert sorted([*halves.first.tolist(), *halves.second.tolist()]) == list(range(41))
    assert (len(halves.first), len(halves.second)) == (21, 20)
    apart = [FeatureStatistics.of(real[rows]) for rows in (halves.first, halves.second)]
    assert halves.distance == pytest.approx(frechet_distance(*apart), rel=1e-9)


def test_a_ratio_is_that_of_two_distances_from_the_first_half():
    """By hand: the samples are the second half, moved by 3 in each of 4 dimensions, or are that half."""
    real = drawn(60, 1)
    halves = Halves(real)
    second = real[halves.second]
    assert halves.ratio(second) == pytest.approx(1, rel=1e-9)
    known = FeatureStatistics.of(real[halves.first])
    moved = second + 3
    apart = second.double().mean(0) - real[halves.first].double().mean(0)
    further = float(((apart + 3) ** 2 - apart**2).sum())
    assert halves.ratio(moved) == pytest.approx(1 + further / halves.distance, rel=1e-6)
    assert frechet_distance(FeatureStatistics.of(moved), known) > 30


@pytest.mark.parametrize("number", [50, 200, 800])
def test_samples_like_the_data_are_near_one_however_many_there_are(number):
    """In the mean of the logarithms, which is 0 whatever is drawn if samples and halves may be exchanged."""
    found = [ratio(drawn(number, 100 + seed, width=24), drawn(400, seed, width=24)) for seed in range(16)]
    assert 0.95 < math.exp(sum(map(math.log, found)) / len(found)) < 1.05
    assert ratio(drawn(number, 7, shift=1.0, width=24), drawn(400, 0, width=24)) > 5


def test_reconstructions_stand_for_the_half_that_they_are_not_compared_with():
    """Else those of the first half would be nearer to it than any real image."""
    real = drawn(40, 2)
    assert ratio(real, real) == pytest.approx(1, rel=1e-9)


def test_one_scale_for_all_networks():
    real, samples = drawn(100, 3), drawn(100, 4, shift=0.5)
    assert ratio(100 * samples, 100 * real) == pytest.approx(ratio(samples, real), rel=1e-5)


def test_several_networks_have_one_figure_with_their_names_in_any_order():
    found = {name: Estimate(value, math.nan, 10) for name, value in (("fdr_vit", 2.0), ("fdr_clip", 5.0))}
    (named,) = over_networks(found, ["vit", "clip"])
    assert named[0] == "fdr_clip_vit" and named[1].value == 3.5
    assert list(over_networks(found, ["vit"])) == list(over_networks(found, ["vit", "mae"])) == []
