"""Nearer to the own picture than to others: exact without captions, whole with perfect ones, honest in ±."""

from itertools import permutations

import pytest
import torch

from reptok.metrics.own_picture import own_picture

NOWHERE = torch.zeros(8)


def test_over_all_permutations_of_the_captions_it_is_exactly_one_half():
    torch.manual_seed(0)
    pictures, samples = torch.randn(5, 8), torch.randn(5, 8) + 2  # all samples in one corner
    shares = [own_picture(samples[list(order)], pictures, NOWHERE).share for order in permutations(range(5))]
    assert sum(shares) / len(shares) == pytest.approx(0.5)
    assert max(shares) > 0.6


def test_samples_that_are_the_pictures_win_always_and_their_opposites_never():
    pictures = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    assert own_picture(pictures, pictures, NOWHERE).share == 1
    assert own_picture(-pictures, pictures, NOWHERE).gain == -0.5


def test_equal_nearness_counts_half():
    assert own_picture(torch.ones(4, 8), torch.ones(4, 8), NOWHERE).share == 0.5


def test_nearness_is_seen_around_the_centre():
    """Far from it every direction looks alike: what differs is only found once the mean is taken away."""
    torch.manual_seed(2)
    pictures, far = torch.randn(200, 8), 1000 * torch.ones(8)
    samples = pictures + torch.randn(200, 8)
    assert own_picture(samples + far, pictures + far, far).share == pytest.approx(
        own_picture(samples, pictures, NOWHERE).share, abs=1e-3
    )


def test_the_error_is_the_spread_over_draws_of_pictures():
    """Pictures come in classes, and samples know the class alone, as they do of captions."""
    torch.manual_seed(3)
    classes = 3 * torch.randn(6, 8)

    def draw():
        labels = torch.randint(6, (80,))
        return own_picture(
            classes[labels] + torch.randn(80, 8), classes[labels] + torch.randn(80, 8), NOWHERE
        )

    found = [draw() for _ in range(300)]
    spread = float(torch.tensor([one.share for one in found]).std())
    assert sum(one.error for one in found) / len(found) == pytest.approx(spread, rel=0.15)


def test_as_many_samples_as_pictures():
    with pytest.raises(ValueError, match="as many samples as pictures"):
        own_picture(torch.ones(3, 8), torch.ones(4, 8), NOWHERE)
