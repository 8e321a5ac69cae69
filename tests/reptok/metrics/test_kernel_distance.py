import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from reptok.metrics.kernel_distance import kernel_distance


def test_it_is_torchmetrics_value():
    torch.manual_seed(0)
    x, y = torch.randn(60, 16, dtype=torch.float64), torch.randn(60, 16, dtype=torch.float64) * 1.3 + 0.2
    theirs = float(poly_mmd(x, y, degree=3, gamma=None, coef=1.0))
    assert kernel_distance(x, y, subsets=1, size=60).value == pytest.approx(theirs, rel=1e-9)


def test_equal_distributions_have_none_on_average_even_with_few_images():
    torch.manual_seed(0)
    found = kernel_distance(torch.randn(4000, 8), torch.randn(4000, 8), subsets=400, size=10)
    assert abs(found.value) < 4 * found.error + 1e-9
    assert kernel_distance(torch.randn(4000, 8) + 1, torch.randn(4000, 8), subsets=400, size=10).value > 0.5


def test_its_drawing_is_seeded():
    torch.manual_seed(0)
    x, y = torch.randn(50, 4), torch.randn(50, 4)
    first, again, other = (kernel_distance(x, y, subsets=5, size=20, seed=s) for s in (1, 1, 2))
    assert first == again != other
    with pytest.raises(ValueError, match="subsets of 51 images"):
        kernel_distance(x, y, size=51)
