"""Compare a stream of image batches with their originals: one class whose `run` yields (name, value).

The originals' features are computed once and serve every method that is compared with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from reptok.metrics.features import FeatureExtractor
from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.metrics.reconstruction import psnr, ssim


class ReconstructionEvaluator:
    """PSNR, SSIM and, where an extractor or LPIPS is given, Frechet distance and LPIPS against the originals.

    Feed it batch by batch with `add`; the means weigh every image equally, whatever the batch size. Per-image
    values and features stay at hand (`psnr`, `features`): a few floats per image, never the images.
    """

    def __init__(
        self,
        extractor: FeatureExtractor | None = None,
        lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
    ):
        self.extractor, self.lpips = extractor, lpips
        self._values: dict[str, list[Tensor]] = {"psnr": [], "ssim": []}
        if lpips is not None:
            self._values["lpips"] = []
        self._features: list[Tensor] = []

    def add(self, images: Tensor, originals: Tensor) -> None:
        """Score one batch of images (B, 3, H, W) in [-1, 1] against originals of the same shape."""
        self._values["psnr"].append(psnr(images, originals).cpu())
        self._values["ssim"].append(ssim(images.float(), originals.float()).cpu())
        if self.lpips is not None:
            self._values["lpips"].append(self.lpips(images, originals).cpu())
        if self.extractor is not None:
            self._features.append(self.extractor(images).cpu())

    @property
    def psnr(self) -> Tensor:
        """PSNR of every image so far, (N,) decibels."""
        return torch.cat(self._values["psnr"])

    @property
    def features(self) -> Tensor:
        """Features of every image so far, (N, D)."""
        return torch.cat(self._features)

    def run(self, originals: FeatureStatistics | None = None) -> Iterator[tuple[str, float]]:
        """Yield the means over all images, then the Frechet distance to the originals' statistics if given.

        Raises:
            ValueError: if no image was added.
        """
        if not self._values["psnr"]:
            raise ValueError("nothing was evaluated: no image was added")
        for name, values in self._values.items():
            yield name, float(torch.cat(values).double().mean())
        if originals is not None and self.extractor is not None:
            distance = frechet_distance(FeatureStatistics.of(self.features), originals)
            yield frechet_name(self.extractor), distance


def frechet_name(extractor: FeatureExtractor) -> str:
    """Name of the Frechet distance: "fid" on Inception's features alone, else "fd_" and the extractor."""
    return "fid" if extractor.name == "inception" else f"fd_{extractor.name}"


def collect_features(extractor: FeatureExtractor, batches: Iterable[Tensor]) -> Tensor:
    """Features (N, D) of all images of some batches, on the CPU."""
    return torch.cat([extractor(batch).cpu() for batch in batches])
