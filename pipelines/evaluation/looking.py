"""What a network says of a set of images, shard by shard: the features of which every score of a set is made.

features-{i}.safetensors   `pooled` (n, D), `spatial` (n, E) and `logits` (n, K) where the network has them
moments.safetensors        `mu`, `sigma`, `mu_s`, `sigma_s` of the whole set, where its file brings them
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import required
from pipelines.dag.shards import Shard, ShardJob, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.real_images import RealImagesConfig
from reptok.bounds import Count, Whole
from reptok.metrics.protocols import ENCODER, INCEPTION, Task

if TYPE_CHECKING:
    from torch import Tensor

    from reptok.metrics.sample_files import ImageSet
    from reptok.metrics.score import Network, Reference, Seen

FEATURES, MOMENTS = "features-{:05d}.safetensors", "moments.safetensors"
FILE = {"reference": "file"}


@dataclass(frozen=True, kw_only=True)
class LookConfig:
    """Who looks.

    Attributes:
        inception_weights: file of the FID Inception's weights, as torch-fidelity publishes it.
        encoder: a timm folder that looks instead; its distance is no FID.
        batch_size: images at a time.
        device: torch device.
        workers: how many look, and what each occupies.
    """

    inception_weights: str = field(default="", metadata=FILE)
    encoder: str = field(default="", metadata={"reference": "network"})
    batch_size: Count = 50
    device: str = "cpu"
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def check(self) -> None:
        """Raise ValueError unless exactly one network is named."""
        if bool(self.inception_weights) == bool(self.encoder):
            raise ValueError(
                "who looks at the samples? evaluate.scores.inception_weights=FILE for FID, or "
                "evaluate.scores.encoder=FOLDER for a distance of its own name"
            )

    def network(self) -> Network:
        """Load it."""
        if self.inception_weights:
            from reptok.metrics.inception import InceptionFeatures

            return InceptionFeatures(required(self.inception_weights, "inception_weights"), self.device)
        from reptok.metrics.features import EncoderFeatures

        return EncoderFeatures.from_folder(required(self.encoder, "encoder"), self.device)

    @property
    def name(self) -> str:
        """Of the network, as in the metrics' names."""
        return INCEPTION if self.inception_weights else ENCODER


@dataclass(frozen=True, kw_only=True)
class ScoresConfig(LookConfig):
    """What a published model is held against, and who looks.

    Attributes:
        reference: real images, or their moments: an `.npz` or `.tar`, or a folder of pictures.
        task: "reconstruction" gives the model these images, "generation" has it make its own; a protocol's.
        crop: how a picture of the reference becomes a square: "centre" or "adm"; a protocol's.
        side: of that square in pixels; 0 where they are squares of one size already; a protocol's.
    """

    reference: str = field(default="", metadata={"reference": "images"})
    task: Task = "generation"
    crop: Literal["centre", "adm"] = "centre"
    side: Whole = 0

    @property
    def look(self) -> LookConfig:
        """Who looks, alone."""
        return LookConfig(**{known.name: getattr(self, known.name) for known in fields(LookConfig)})


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

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `features-{i}.safetensors`."""
        import torch
        from safetensors.torch import save

        from reptok.metrics.score import looked

        parts = [looked(self.network, pixels) for pixels in self.batches(shard)]
        found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        out.write_bytes(FEATURES.format(shard.index), save(found))
        return {"rows_in": shard.rows, "rows_out": len(found["pooled"])}


@dataclass(frozen=True)
class LookAtSamplesJob(LookJob):
    """Of one file of an artifact `samples`."""

    samples: Artifact

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

    names = features.files("features-*.safetensors")
    wanted = None if numbers is None else {FEATURES.format(number) for number in numbers}
    return gathered(_tensors(features, name) for name in names if wanted is None or name in wanted)


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
