"""Which networks look at samples and at real images: any number of them, each under its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import WorkerResources
from pipelines.evaluation.looking import CLIP, DINOV2, FILE, FOLDER, LookConfig
from reptok.bounds import Count, Whole
from reptok.metrics.protocols import ENCODER, INCEPTION, Task


@dataclass(frozen=True, kw_only=True)
class EncoderJudge:
    """A network by a name of its own.

    Attributes:
        name: as in the metrics' names: `fd_mae`.
        folder: a timm folder.
    """

    name: str
    folder: str = field(metadata=FOLDER)


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """What a published model is held against, and who looks; each network that is named gives its scores.

    Attributes:
        inception_weights: file of the FID Inception's weights, as torch-fidelity publishes it.
        encoder: a timm folder that looks; its distance is no FID.
        encoders: further ones, each with its name.
        dinov2: the timm folder of DINOv2's ViT-L/14, for FD-DINOv2.
        clip: a folder of open_clip's, for the CLIP score and a distance of its own.
        lpips_weights: file of torchvision's AlexNet, for LPIPS of reconstructions.
        reference: real images, or their moments: an `.npz` or `.tar`, or a folder of pictures.
        annotations: COCO's file of captions, for its protocols.
        ids: a file of COCO's annotation ids in the place of a protocol's rule.
        task: "reconstruction" gives the model these images, "generation" has it make its own; a protocol's.
        crop: how a picture of the reference becomes a square: "centre" or "adm"; a protocol's.
        side: of that square in pixels; 0 where they are squares of one size already; a protocol's.
        batch_size: images at a time.
        device: torch device.
        workers: how many look, and what each occupies.
    """

    inception_weights: str = field(default="", metadata=FILE)
    encoder: str = field(default="", metadata=FOLDER)
    encoders: tuple[EncoderJudge, ...] = ()
    dinov2: str = field(default="", metadata=FOLDER)
    clip: str = field(default="", metadata=FOLDER)
    lpips_weights: str = field(default="", metadata=FILE)
    reference: str = field(default="", metadata={"reference": "images"})
    annotations: str = field(default="", metadata=FILE)
    ids: str = field(default="", metadata=FILE)
    task: Task = "generation"
    crop: Literal["centre", "adm"] = "centre"
    side: Whole = 0
    batch_size: Count = 50
    device: str = "cpu"
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def looks(self, task: Task) -> list[LookConfig]:
        """Who looks, one by one; of reconstructions, which have scores of their own, also nobody.

        Raises:
            ValueError: nobody, or two of one name.
        """
        known = {"batch_size": self.batch_size, "device": self.device, "workers": self.workers}
        named = [
            *([("inception", INCEPTION, self.inception_weights)] if self.inception_weights else []),
            *([("encoder", ENCODER, self.encoder)] if self.encoder else []),
            *([("dinov2", DINOV2, self.dinov2)] if self.dinov2 else []),
            *([("clip", CLIP, self.clip)] if self.clip else []),
            *(("encoder", judge.name, judge.folder) for judge in self.encoders),
        ]
        if not named and task == "generation":
            raise ValueError(
                "who looks at the samples? evaluate.scores.inception_weights=FILE for FID; encoder=FOLDER, "
                "dinov2=FOLDER or clip=FOLDER there for distances of their own names; several of them for all"
            )
        names = [name for _, name, _ in named]
        if len(set(names)) < len(names):
            raise ValueError(f"two networks of one name: {', '.join(names)}")
        found = []
        for recipe, name, place in named:
            where = {"file" if recipe == "inception" else "folder": place}
            settings: Any = {"recipe": recipe, "name": name, **where, **known}
            found.append(LookConfig(**settings))
        return found
