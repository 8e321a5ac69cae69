import pytest
import torch

from reptok.metrics import manifold
from reptok.metrics.manifold import precision_recall


def test_a_collapsed_generator_is_precise_and_recalls_nothing():
    torch.manual_seed(0)
    real = torch.randn(400, 8)
    collapsed = real[7] + 1e-4 * torch.randn(400, 8)
    found = precision_recall(collapsed, real)
    assert found.precision == 1
    assert found.recall == 1 / 400, "the one image that it copies"


def test_samples_far_from_everything_have_neither():
    torch.manual_seed(0)
    found = precision_recall(torch.randn(50, 4) + 100, torch.randn(60, 4))
    assert (found.precision, found.recall) == (0, 0)


def test_half_a_distribution_is_half_recalled():
    torch.manual_seed(0)
    here, there = torch.randn(300, 3), torch.randn(300, 3) + 50
    found = precision_recall(torch.randn(300, 3), torch.cat([here, there]))
    assert found.precision > 0.95
    assert 0.45 < found.recall <= 0.5


def test_points_on_a_line_by_hand():
    """Radii to the first neighbour: real 1, 1, 3 and samples 0.5, 0.5, 9.1."""
    real = torch.tensor([[0.0], [1.0], [4.0]])
    samples = torch.tensor([[2.5], [3.0], [12.1]])
    found = precision_recall(samples, real, neighbours=1)
    assert found.precision == pytest.approx(2 / 3), "4 reaches down to 1"
    assert found.recall == pytest.approx(1 / 3), "12.1 reaches down to 3.0, so to 4 alone"


def test_blocks_change_nothing(monkeypatch):
    torch.manual_seed(1)
    samples, real = torch.randn(101, 5), torch.randn(97, 5) * 1.2
    whole = precision_recall(samples, real)
    monkeypatch.setattr(manifold, "BLOCK", 13)
    assert precision_recall(samples, real) == whole


def test_equal_images_are_each_others_neighbours():
    points = torch.zeros(10, 3)
    assert precision_recall(points, points).precision == 1


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="more than 3 images"):
        precision_recall(torch.zeros(3, 2), torch.zeros(9, 2))
    with pytest.raises(ValueError, match="two kinds"):
        precision_recall(torch.zeros(9, 2), torch.zeros(9, 3))
