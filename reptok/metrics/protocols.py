"""Protocols: what a score was measured by, as a named value that is part of the score's name.

A distance without its protocol says nothing: another reference set, another crop, other pixels or fewer
images are another number. `gfid/adm256_50k` names them all; measured on fewer images than the protocol asks
for it is `gfid/adm256_50k_n1000`, and compares with nothing but itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reptok.bounds import Quantisation

Task = Literal["generation", "reconstruction"]
INCEPTION, ENCODER = "inception", "vit"
"""Names of networks that look at images: the first alone makes a distance a FID."""
OWN = "own"
"""The protocol of anybody's data."""
_PREFIX = {"generation": "g", "reconstruction": "r"}
RATIO = "fdr"
"""Of the names of distances that are measured in those of real images, on one network or several."""
_BY_TASK = ("fid", "sfid", "kid", "fd", "kd", RATIO)
"""Metrics whose name begins with their task: gfid and rfid are not one figure."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a set of images is scored.

    Attributes:
        name: as it stands in the metrics' names.
        task: samples of a generator, or reconstructions of the reference images themselves.
        images: how many are scored; 0 where that is not the protocol's to say, and the name always holds it.
        reference: what they are held against, in words.
        reference_images: how many real images the comparison holds; for precision and recall, where fewer.
        labels: which conditions are sampled.
        crop: how originals become squares, a name of `reptok.data.images.CROPS`.
        size: side in pixels; 0 for that of the data.
        quantisation: how pixels in [-1, 1] become bytes.
        order: how the images of COCO are chosen: the first ones by their ids ("ascending"), or by the SHA-256
            of their ids as decimal text ("hashed"), which is an even choice; "" where nothing is to choose.
        source: where this protocol was published.
    """

    name: str
    task: Task
    images: int
    reference: str
    reference_images: int
    labels: str
    crop: str
    size: int = 256
    quantisation: Quantisation = "round"
    order: Literal["", "hashed", "ascending"] = ""
    source: str = ""

    def metric(self, metric: str, images: int) -> str:
        """The full name of a metric of this protocol, measured on so many images.

        Raises:
            ValueError: more images than the protocol asks for, which would be another score under its name.
        """
        return metric_name(metric, self.name, images, wanted=self.images, task=self.task)


def metric_name(
    metric: str, protocol: str, images: int, *, wanted: int = 0, task: Task = "generation"
) -> str:
    """`gfid/adm256_50k`, or `gfid/adm256_50k_n1000` where fewer were measured than the protocol wants.

    Args:
        metric: `fid`, `precision`, `psnr` ...
        protocol: its name.
        images: how many were measured.
        wanted: how many the protocol asks for; 0 where it asks for none, and the number always stands there.
        task: decides the first letter of distances.

    Raises:
        ValueError: more images than are wanted.
    """
    if wanted and images > wanted:
        raise ValueError(
            f"{protocol} is a score of {wanted:,} images, not of {images:,}: take the first {wanted:,}"
        )
    family = metric.split("_")[0]
    prefix = _PREFIX[task] if family in _BY_TASK else ""
    return f"{prefix}{metric}/{protocol}" + ("" if images == wanted else f"_n{images}")


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="adm256_50k",
            task="generation",
            images=50_000,
            reference="ADM's VIRTUAL_imagenet256_labeled.npz: statistics of the training set, 10,000 images",
            reference_images=10_000,
            labels="every class equally often",
            crop="adm",
            source="Dhariwal & Nichol (2021); openai/guided-diffusion, evaluations",
        ),
        Protocol(
            name="val256_50k",
            task="reconstruction",
            images=50_000,
            reference="the originals: ImageNet's validation set",
            reference_images=50_000,
            labels="none",
            crop="adm",
            quantisation="truncate",
            source="the paper's tokenizer tables; its release truncates before FID",
        ),
        Protocol(
            name="coco2014_30k",
            task="generation",
            images=30_000,
            reference="the images of 30,000 captions of COCO's validation set of 2014",
            reference_images=30_000,
            labels="the first caption of every image: of the lowest annotation id",
            crop="centre",
            order="hashed",
            source="zero-shot FID-30k as in the text-to-image literature, where everybody draws their own",
        ),
        Protocol(
            name="coco2017_5k",
            task="generation",
            images=5_000,
            reference="COCO's validation set of 2017",
            reference_images=5_000,
            labels="the first caption of every image: of the lowest annotation id",
            crop="centre",
            order="ascending",
            source="the paper's language backbones (FID-5k)",
        ),
        Protocol(
            name=OWN,
            task="generation",
            images=0,
            reference="the validation split of the data",
            reference_images=0,
            labels="what every validation image is told to show",
            crop="centre",
            size=0,
            source="this project",
        ),
    )
}
"""The published ones, by name."""


def full_name(
    metric: str, protocol: Protocol | None, reference: str, images: int, task: Task = "generation"
) -> str:
    """A metric's name by its protocol, or, without one, by its reference, task and the number of images."""
    return protocol.metric(metric, images) if protocol else metric_name(metric, reference, images, task=task)


def protocol(name: str) -> Protocol:
    """Return the protocol of this name.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
