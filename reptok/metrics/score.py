"""Score a set of images against a reference set: everything that one look of one network gives.

On Inception: FID, sFID, Inception score, KID, precision and recall. On any other network the same without
sFID and Inception score, its name in the metric's: `fd_vit`, `kd_vit`, `precision_vit`; on one that reads
texts also how well images fit theirs: `clip_score`. On each the ratio `fdr_vit`, whose mean over networks
stands for all of them. N images, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from reptok.metrics.frechet import FeatureStatistics, Gaussian, Moments, frechet_distance
from reptok.metrics.inception_score import ClassSums
from reptok.metrics.kernel_distance import SUBSET, kernel_distance
from reptok.metrics.manifold import NEIGHBOURS, precision_recall
from reptok.metrics.protocols import INCEPTION, RATIO
from reptok.metrics.ratio import Halves
from reptok.metrics.sample_files import ImageSet, holds_images, npz_moments, open_images
from reptok.metrics.uncertainty import Estimate, frechet_without_bias, mean, share


class Network(Protocol):
    """What looks at images.

    Attributes:
        name: part of the metrics' names; `inception` alone makes a distance a FID.
    """

    name: str

    def look(self, pixels: Tensor) -> Mapping[str, Tensor]:
        """Of uint8 (B, 3, H, W): `pooled` (B, D); `spatial` (B, E) and `logits` (B, K) where it has them."""
        ...


@runtime_checkable
class Reads(Protocol):
    """A network that reads, too."""

    def fit(self, pooled: Tensor, texts: list[str]) -> Tensor:
        """How well each image (B,) of what `look` saw of it fits its text."""
        ...


@dataclass(frozen=True)
class Seen:
    """A set of images as a network saw it.

    Attributes:
        pooled: features (N, D), float32.
        spatial: statistics of the spatial features, where the network has them.
        classes: sums of the class probabilities, where the network has classes.
        fit: (N,) how well each fits its text, where the network reads and there are texts.
    """

    pooled: Tensor
    spatial: FeatureStatistics | None = None
    classes: ClassSums | None = None
    fit: Tensor | None = None

    def __len__(self) -> int:
        return len(self.pooled)


@dataclass(frozen=True)
class Reference:
    """What samples are held against.

    Attributes:
        images: the real images, or those of them that the file brings; None where it brings moments only.
        pooled: moments of the whole reference set.
        spatial: of the spatial features, where there are some.
    """

    images: Seen | None
    pooled: Moments
    spatial: Moments | None


def see(
    images: ImageSet, network: Network, batch_size: int = 50, progress: Callable[[int], None] | None = None
) -> Seen:
    """Let a network look at every image; `progress` is told how many it has seen."""

    def parts() -> Iterator[dict[str, Tensor]]:
        done = 0
        for pixels in images.batches(batch_size):
            yield looked(network, pixels)
            done += len(pixels)
            if progress is not None:
                progress(done)

    return gathered(parts(), len(images))


def looked(network: Network, pixels: Tensor) -> dict[str, Tensor]:
    """What a network says of uint8 (B, 3, H, W), in float32 on the CPU."""
    return {name: values.float().cpu() for name, values in network.look(pixels).items()}


def gathered(parts: Iterable[Mapping[str, Tensor]], images: int) -> Seen:
    """What a network said of consecutive parts of a set, as one; of spatial features and classes, the sums.

    Args:
        parts: what it said of each.
        images: of all of them together; 50,000 have 400 MB of features, which are held once.

    Raises:
        ValueError: there are more, or fewer.
    """
    whole: dict[str, Tensor] = {}
    held: dict[str, int] = {}
    spatial: FeatureStatistics | None = None
    classes: ClassSums | None = None
    done = 0
    for part in parts:
        number = len(part["pooled"])
        if done + number > images:
            raise ValueError(f"more than the {images:,} images that were announced")
        for name, values in part.items():
            if name == "spatial":
                spatial = spatial or FeatureStatistics(values.shape[1])
                spatial.update(values)
            elif name == "logits":
                classes = classes or ClassSums(values.shape[1])
                classes.update(values)
            else:
                if name not in whole:
                    whole[name] = torch.empty(images, *values.shape[1:], dtype=values.dtype)
                whole[name][done : done + number] = values
                held[name] = held.get(name, 0) + number
        done += number
    if done != images:
        raise ValueError(f"{done:,} of {images:,} images were seen")
    of_all = {name: values for name, values in whole.items() if held[name] == images}
    return Seen(of_all["pooled"], spatial, classes, of_all.get("fit"))


def reference_of(
    path: str | Path, network: Network, look: Callable[[ImageSet], Seen], **how: Any
) -> Reference:
    """A reference of a file's own statistics where it brings some (Inception's), else of its images.

    Args:
        path: what `open_images` opens, or an `.npz` of statistics alone.
        network: what looks at it.
        look: lets the network see a set of images.
        how: `crop` and `side`, for `open_images`.

    Raises:
        ValueError: neither images nor statistics that this network can be compared with.
    """
    path = Path(path)
    moments = npz_moments(path) if path.suffix == ".npz" and network.name == INCEPTION else {}
    alone = "mu" in moments and not holds_images(path)
    return held(None if alone else look(open_images(path, **how)), moments)


def held(images: Seen | None, moments: Mapping[str, Tensor]) -> Reference:
    """A reference of real images, of the moments of their whole set (see `npz_moments`), or of both.

    Raises:
        ValueError: neither.
    """
    pooled = Gaussian(moments["mu"], moments["sigma"]) if "mu" in moments else None
    spatial = Gaussian(moments["mu_s"], moments["sigma_s"]) if "mu_s" in moments else None
    if images is not None:
        return Reference(images, pooled or FeatureStatistics.of(images.pooled), spatial or images.spatial)
    if pooled is None:
        raise ValueError("a reference needs images, or mu and sigma")
    return Reference(None, pooled, spatial)


def scores(samples: Seen, reference: Reference, network: str = INCEPTION) -> Iterator[tuple[str, Estimate]]:
    """Yield every metric with its error, NaN where the literature's estimate has none.

    The distance without bias stands beside the biased one (`fid_infinity`), and the distance of two halves of
    the reference images (`fid_of_halves`): what a perfect generator would have at that number of images. The
    one by the other, of equally many images, is `fdr_inception`; see `Halves`.

    Args:
        samples: what is scored.
        reference: by the same network.
        network: its name.
    """
    distance, suffix = ("fid", "") if network == INCEPTION else (f"fd_{network}", f"_{network}")
    number = len(samples)
    yield distance, _exact(frechet_distance(FeatureStatistics.of(samples.pooled), reference.pooled), number)
    if number > samples.pooled.shape[1]:
        yield f"{distance}_infinity", frechet_without_bias(samples.pooled, reference.pooled)
    if samples.spatial is not None and reference.spatial is not None:
        yield "sfid", _exact(frechet_distance(samples.spatial, reference.spatial), number)
    if samples.classes is not None:
        yield "inception_score", _exact(samples.classes.score().value, number)
    real = reference.images
    for name, seen in ((f"{network}_score", samples), (f"{network}_score_of_real", real)):
        if seen is not None and seen.fit is not None:
            yield name, mean(seen.fit)
    if real is None:
        return
    smaller = min(number, len(real))
    if smaller >= 2:
        kernel = kernel_distance(samples.pooled, real.pooled, size=min(SUBSET, smaller))
        yield ("kid" if network == INCEPTION else f"kd_{network}"), kernel
    if smaller > NEIGHBOURS:
        found_shares = precision_recall(samples.pooled, real.pooled)
        yield f"precision{suffix}", share(found_shares.precision, number)
        yield f"recall{suffix}", share(found_shares.recall, len(real))
    if len(real) >= 4:
        apart = Halves(real.pooled)
        yield f"{distance}_of_halves", _exact(apart.distance, len(apart.second))
        if number >= 2 and apart.distance:
            yield f"{RATIO}_{network}", _exact(apart.ratio(samples.pooled), len(apart.like(number)))


def _exact(value: float, images: int) -> Estimate:
    return Estimate(value, float("nan"), images)
