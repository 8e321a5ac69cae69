"""What a network says of a set of images, shard by shard: the features of which every score of a set is made.

features-{i}.safetensors   `pooled` (n, D), `spatial` (n, E) and `logits` (n, K) where the network has them;
                           `fit` (n,) to their texts where it reads and there are some
moments.safetensors        `mu`, `sigma`, `mu_s`, `sigma_s` of the whole set, where its file brings them
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import refer, required
from pipelines.dag.shards import Shard, ShardJob, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.real_images import RealImagesConfig
from reptok.bounds import Count
from reptok.metrics.protocols import INCEPTION

if TYPE_CHECKING:
    from torch import Tensor

    from reptok.metrics.sample_files import ImageSet
    from reptok.metrics.score import Network, Reference, Seen

FEATURES, MOMENTS = "features-{:05d}.safetensors", "moments.safetensors"
FILE, FOLDER = {"reference": "file"}, {"reference": "network"}
Recipe = Literal["inception", "encoder", "dinov2", "clip"]
CLIP, DINOV2 = "clip", "dinov2"
_NAME = re.compile(r"[a-z][a-z0-9]*")
"""Of a network; an underscore would run into the metric's."""


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """One network that looks.

    Attributes:
        name: as in the metrics' names.
        recipe: how it sees a picture.
        file: of the FID Inception's weights, as torch-fidelity publishes it; for the recipe "inception".
        folder: of the network, for the others.
        batch_size: images at a time.
        device: torch device.
        workers: how many look, and what each occupies.
    """

    name: str = INCEPTION
    recipe: Recipe = "inception"
    file: str = field(default="", metadata=FILE)
    folder: str = field(default="", metadata=FOLDER)
    batch_size: Count = 50
    device: str = "cpu"
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a network's name is of a-z and 0-9, unlike {self.name!r}")

    def network(self) -> Network:
        """Load it."""
        if self.recipe == "inception":
            from reptok.metrics.inception import InceptionFeatures

            return InceptionFeatures(required(self.file, "evaluate.scores.inception_weights"), self.device)
        place = refer(self.folder, f"evaluate.scores: the folder of {self.name}")
        if self.recipe == "clip":
            from reptok.metrics.clip_score import ClipScore

            return ClipScore.from_folder(place.folder or place.hub, self.device)
        from reptok.folder import local_folder
        from reptok.metrics.features import Dinov2Features, EncoderFeatures

        folder = local_folder(place.folder or place.hub)
        if self.recipe == "dinov2":
            return Dinov2Features.of(folder, self.device)
        return EncoderFeatures.from_folder(folder, self.device, self.name)


@dataclass(frozen=True)
class LookJob(ShardJob):
    """Let a network see the images of a shard."""

    look: LookConfig
    network: Network = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the network; on the CPU it computes in one thread, whose number would change the last bits."""
        import torch

        if self.look.device == "cpu":
            torch.set_num_threads(1)
        object.__setattr__(self, "network", self.look.network())

    @abstractmethod
    def batches(self, shard: Shard) -> Iterator[Tensor]:
        """The images, uint8 (B, 3, H, W)."""

    def texts(self, shard: Shard) -> list[str]:
        """What they are told to show; none where nobody says it in words."""
        return []

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `features-{i}.safetensors`."""
        import torch
        from safetensors.torch import save

        from reptok.metrics.score import Reads, looked

        parts, texts, reader = [], self.texts(shard), self.network
        for pixels in self.batches(shard):
            part = looked(self.network, pixels)
            if texts and isinstance(reader, Reads):
                some, texts = texts[: len(pixels)], texts[len(pixels) :]
                part["fit"] = reader.fit(part["pooled"], some).float().cpu()
            parts.append(part)
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        out.write_bytes(FEATURES.format(shard.index), save(found))
        return {"rows_in": shard.rows, "rows_out": len(found["pooled"])}


@dataclass(frozen=True)
class LookAtSamplesJob(LookJob):
    """Of one file of an artifact `samples` or `originals`."""

    samples: Artifact

    def texts(self, shard: Shard) -> list[str]:
        """Prompts of samples, captions of originals."""
        name = shard.payload["file"].replace(".npz", ".jsonl")
        rows = [json.loads(line) for line in self.samples.read_bytes(name).splitlines()]
        told = [row.get("asked", row.get("caption")) for row in rows]
        return told if all(isinstance(text, str) and text for text in told) else []

    def batches(self, shard: Shard) -> Iterator[Tensor]:
        """The images of the file that the payload names."""
        from reptok.metrics.sample_files import NpzImages

        return NpzImages(Path(self.samples.local_path(shard.payload["file"]))).batches(self.look.batch_size)


@dataclass(frozen=True)
class LookAtReferenceJob(LookJob):
    """Of a range of the real images."""

    real: RealImagesConfig
    images: ImageSet = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the network, and open the images once."""
        super().setup()
        object.__setattr__(self, "images", self.real.open())

    def batches(self, shard: Shard) -> Iterator[Tensor]:
        """The images `start` to `stop` of the payload."""
        return self.images.batches(self.look.batch_size, **shard.payload)


def seen(features: Artifact, numbers: Sequence[int] | None = None) -> Seen:
    """The features of a set, or of some of its shards, in the order of the images."""
    from reptok.metrics.score import gathered

    wanted = None if numbers is None else {FEATURES.format(number) for number in numbers}
    names = [n for n in features.files("features-*.safetensors") if wanted is None or n in wanted]
    return gathered((_tensors(features, name) for name in names), sum(_rows(features, n) for n in names))


def reference_of(features: Artifact) -> Reference:
    """What samples are held against: moments that the file brought, else those of its images."""
    from reptok.metrics.score import held

    images = seen(features) if features.files("features-*.safetensors") else None
    return held(images, _tensors(features, MOMENTS) if features.files(MOMENTS) else {})


def write_moments(moments: dict[str, Tensor], out: Workspace) -> None:
    """Write what `reptok.metrics.sample_files.npz_moments` found."""
    from safetensors.torch import save

    out.write_bytes(MOMENTS, save(moments))


def _tensors(artifact: Artifact, name: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    found = load(artifact.read_bytes(name))
    return {key: values.clone() for key, values in found.items()}  # else each keeps the whole file in memory


def _rows(artifact: Artifact, name: str) -> int:
    """Images of a file of features, by its header."""
    with artifact.open(name) as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return int(header["pooled"]["shape"][0])
