"""C13: the Frechet distance of Inception's features, from statistics that merge, against torch-fidelity's."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.compare import Comparison, compare
from reptok.metrics.frechet import FeatureStatistics, frechet_distance

IMAGES, DIM, SHARDS = 6000, 2048, 12


def run() -> Comparison:
    """Statistics of two sets of features, ours in shards that are merged, and their distance."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(DIM, DIM, generator=generator) / DIM**0.5
    made, real = (torch.randn(IMAGES, DIM, generator=generator) @ mixing for _ in range(2))
    made = 1.1 * made + 0.05

    def merged(features: Tensor) -> FeatureStatistics:
        whole = FeatureStatistics(DIM)
        for part in features.chunk(SHARDS):
            whole.merge(FeatureStatistics.of(part))
        return whole

    def ours() -> float:
        return frechet_distance(merged(made), merged(real))

    def theirs() -> float:
        statistics = [fid_features_to_statistics(features) for features in (made, real)]
        return float(fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"])

    apart = abs(ours() / theirs() - 1)
    if apart > 1e-4:
        raise RuntimeError(f"the distances are {apart:.1e} of each other apart")
    return compare(
        f"C13 Frechet distance of twice {IMAGES:,} features of {DIM}", ours, "torch-fidelity", theirs,
        f"distances {apart:.0e} apart; ours of {SHARDS} merged shards", pairs=3,
    )  # fmt: skip
