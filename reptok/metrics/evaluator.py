"""Compare a stream of image batches with their originals: one class whose `run` yields (name, value).

The originals' features are computed once and serve every method that is compared with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from reptok.metrics.features import FeatureExtractor
from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.reconstruction import PER_IMAGE


class ReconstructionEvaluator:
    """PSNR, SSIM and, where given, LPIPS and Frechet distances against the originals.

    Feed it batch by batch with `add`; the means weigh every image equally, whatever the batch size. Per-image
    values and features stay at hand (`values`, `features`): a few floats per image, never the images.
    """

    def __init__(
        self,
        extractors: Sequence[FeatureExtractor] = (),
        lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.extractors, self.lpips = tuple(extractors), lpips
        self._values: dict[str, list[Tensor]] = {name: [] for name in PER_IMAGE}
        if lpips is not None:
            self._values["lpips"] = []
        self._features: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}

    def add(self, images: Tensor, originals: Tensor) -> None:
        """Score one batch of images (B, 3, H, W) in [-1, 1] against originals of the same shape."""
        for name, metric in PER_IMAGE.items():
            self._values[name].append(metric(images.float(), originals.float()).cpu())
        if self.lpips is not None:
            self._values["lpips"].append(self.lpips(images, originals).cpu())
        for extractor in self.extractors:
            self._features[extractor.name].append(extractor(images).cpu())

    @property
    def per_image(self) -> tuple[str, ...]:
        """Names of the metrics that have a value of each image."""
        return tuple(self._values)

    def values(self, metric: str) -> Tensor:
        """A metric's value of every image so far, (N,); `psnr` in decibels."""
        return torch.cat(self._values[metric])

    def features(self, extractor: str) -> Tensor:
        """Features of every image so far by the extractor of this name, (N, D)."""
        return torch.cat(self._features[extractor])

    def run(self, originals: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, float]]:
        """Yield the means over all images, then the Frechet distances to the originals.

        Args:
            originals: the originals' features (N, D) by extractor name, for the distances that are wanted.

        Raises:
            ValueError: if no image was added.
        """
        if not self._values["psnr"]:
            raise ValueError("nothing was evaluated: no image was added")
        for name, values in self._values.items():
            yield name, float(torch.cat(values).double().mean())
        for name, features in (originals or {}).items():
            if name in self._features:
                yield frechet_name(name), frechet_of(self.features(name), features)


def frechet_name(extractor: str) -> str:
    """Name of the Frechet distance: "fid" on Inception's features alone, else "fd_" and the extractor."""
    return "fid" if extractor == "inception" else f"fd_{extractor}"


def frechet_of(features: Tensor, others: Tensor) -> float:
    """Frechet distance of two sets of features (N, D) and (M, D)."""
    return frechet_distance(FeatureStatistics.of(features), FeatureStatistics.of(others))
