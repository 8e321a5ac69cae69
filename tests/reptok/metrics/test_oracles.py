"""Each metric of sets beside a well-known implementation, on features that overlap in part."""

import numpy as np
import pytest
import torch
from scipy import linalg
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd
from torch_fidelity.metric_prc import calculate_precision_recall_full

from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.inception_score import inception_score
from reptok.metrics.kernel_distance import kernel_distance
from reptok.metrics.manifold import precision_recall


@pytest.fixture
def features():
    torch.manual_seed(3)
    mixing = torch.randn(24, 24) / 5
    samples = torch.randn(500, 24) @ mixing
    return samples, 1.1 * torch.randn(400, 24) @ mixing + 0.1


def test_the_frechet_distance_is_scipys_and_torch_fidelitys(features):
    ours = frechet_distance(*map(FeatureStatistics.of, features))
    a, b = (values.double().numpy() for values in features)
    covariances = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    by_hand = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert ours == pytest.approx(by_hand, rel=1e-9)
    statistics = [fid_features_to_statistics(values) for values in features]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_precision_and_recall_are_torch_fidelitys(features):
    found = precision_recall(*features)
    theirs = calculate_precision_recall_full(*(values.double() for values in features))
    assert (found.precision, found.recall) == pytest.approx(theirs, abs=1e-6)
    assert 0.2 < found.recall < 0.95 and found.precision != found.recall, "or the comparison says little"


def test_the_inception_score_is_torch_fidelitys(features):
    logits = 2 * features[0]
    found = inception_score(logits, split=100)
    theirs = isc_features_to_metric(logits, splits=5, shuffle=False)
    assert found.value == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
    assert found.spread == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_the_kernel_distance_is_torch_fidelitys(features):
    samples, references = features[0][:400], features[1]
    arrays = (values.double().numpy() for values in (samples, references))
    theirs = kernel_mmd(
        *arrays,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
    )
    assert kernel_distance(samples, references, subsets=1, size=400).value == pytest.approx(theirs, rel=1e-6)
