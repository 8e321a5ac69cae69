"""A metric's value on fixed inputs belongs to its version: one does not move without the other."""

import pytest
import torch

from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.interpolation import gradualness
from reptok.metrics.knn import knn_accuracy
from reptok.metrics.own_picture import own_picture
from reptok.metrics.reconstruction import psnr, ssim
from reptok.metrics.versions import VERSIONS


def fixed(*shape, phase=0.0):
    """Numbers in [-1, 1] that no generator draws."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return torch.sin(count * 1.7 + phase).view(shape).float()


IMAGES, OTHERS = fixed(4, 3, 32, 32), fixed(4, 3, 32, 32, phase=0.3)
BANK, QUERIES = fixed(60, 8), fixed(20, 8, phase=0.9)
PATHS = fixed(3, 6, 5)


def knn():
    return knn_accuracy(BANK, (BANK[:, 1] > 0.2).long(), QUERIES, (QUERIES[:, 2] > 0.2).long(), k=5)


KEPT = {
    "psnr": (1, 19.520756, lambda: psnr(IMAGES, OTHERS).mean()),
    "ssim": (1, 0.95549679, lambda: ssim(IMAGES, OTHERS).mean()),
    "frechet": (1, 2.0594698, lambda: frechet_distance(*map(FeatureStatistics.of, (BANK, QUERIES + 0.5)))),
    "knn": (1, 0.5, knn),
    "own_picture": (1, 0.92105263, lambda: own_picture(BANK[:20] + QUERIES, BANK[:20], BANK.mean(0)).share),
    "gradualness": (1, 0.21487709, lambda: gradualness(PATHS).largest_step.mean()),
}
"""Version, value, and how it is computed; lpips and clip_score need weights that are not here."""


def test_every_metric_has_a_version():
    assert VERSIONS.keys() == KEPT.keys() | {"lpips", "clip_score"}


@pytest.mark.parametrize("name", KEPT)
def test_a_value_moves_only_with_its_version(name):
    version, value, measured = KEPT[name]
    found = float(measured())
    assert (VERSIONS[name], found) == (version, pytest.approx(value, rel=1e-5)), (
        f"{name} means something else than it did: raise its version in reptok/metrics/versions.py, and keep "
        "the new value with it here"
    )
