"""The workflow that scores a published model by its samples or by reconstructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipelines.configuration.schema import Config
from pipelines.dag.reference import find, folder_digest, required
from pipelines.dag.stage import Stage
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.reconstructing import ReconstructImagesConfig
from pipelines.over_steps import over_steps
from pipelines.stages.look_at_images import LookAtReference, LookAtReferenceConfig, LookAtSamples
from pipelines.stages.reconstruct_images import ReconstructImages
from pipelines.stages.sample_images import SampleImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from pipelines.stages.take_originals import TakeCoco, TakeCocoConfig, TakeValidation, TakeValidationConfig
from reptok.metrics.protocols import ENCODER, OWN, Protocol, protocol


def evaluate(config: Config, dataset_of: Callable[[Config], list[Stage]]) -> list[Stage]:
    """Samples or reconstructions of a published model and, where real images are given, their scores.

    Args:
        config: the configuration.
        dataset_of: the stages that make the dataset of its `data`.

    Raises:
        ValueError: A protocol without the images that it compares with, or settings that do not go with
            what is made.
        FileNotFoundError: There are no such images.
    """
    scores = config.evaluate.scores
    wanted = protocol(config.protocol) if config.protocol else None
    if wanted is not None and wanted.name == OWN:
        wanted = replace(wanted, task=scores.task)
        taken = _validation(config, dataset_of)
    elif wanted is not None and wanted.order:
        taken = [_coco(config, wanted)]
    else:
        taken = []
    task = wanted.task if wanted else scores.task
    if not taken and not scores.reference:
        if wanted:
            raise ValueError(
                f"protocol={wanted.name} compares with {wanted.reference}: "
                "give that with evaluate.scores.reference=PATH"
            )
        if task == "reconstruction":
            raise ValueError("what is to be reconstructed? evaluate.scores.reference=PATH names the images")
        if config.kept:
            raise ValueError("a curve is of scores: kept=true needs protocol= or evaluate.scores.reference=")
        return [_samples(config, wanted)]
    real = RealImagesConfig() if taken else _real(config, wanted, task)
    looks, originals = scores.looks(task), bool(taken)
    named = ScoreSamplesConfig(
        protocol=config.protocol, reference="" if taken else Path(scores.reference).stem, task=task,
        networks=tuple(look.name for look in looks), notes=_notes(config),
    )  # fmt: skip

    def scored(step: int = 0) -> list[Stage]:
        make = _reconstructions(config, wanted, real, step, originals)
        if task == "generation":
            make = _samples(config, wanted, step, originals)
        return [make, *(LookAtSamples(look) for look in looks), ScoreSamples(named, originals)]

    references = [LookAtReference(LookAtReferenceConfig(look=look, real=real), originals) for look in looks]
    of_steps = over_steps(config.model, task, scored) if config.kept else []
    return [*taken, *references, *scored(), *of_steps]


def _real(config: Config, wanted: Protocol | None, task: str) -> RealImagesConfig:
    """The real images that lie in files."""
    scores = config.evaluate.scores
    required(scores.reference, "evaluate.scores.reference")
    real = RealImagesConfig(
        path=scores.reference,
        crop=wanted.crop if wanted else scores.crop,
        side=wanted.size if wanted else scores.side,
        rows_per_shard=config.evaluate.samples.rows_per_shard,
    )
    if task == "reconstruction":  # against the very images that are reconstructed
        real = replace(real, images=config.evaluate.samples.images or (wanted.images if wanted else 0))
    return real


def _validation(config: Config, dataset_of: Callable[[Config], list[Stage]]) -> list[Stage]:
    samples = config.evaluate.samples
    if config.evaluate.scores.reference:
        raise ValueError(
            f"protocol={OWN} compares with the validation split of data=: leave evaluate.scores.reference out"
        )
    held_out = TakeValidationConfig(
        images=samples.images, rows_per_shard=samples.rows_per_shard, workers=samples.workers
    )
    return [*dataset_of(config), TakeValidation(held_out)]


def _coco(config: Config, wanted: Protocol) -> Stage:
    scores, samples = config.evaluate.scores, config.evaluate.samples
    for key, what in (("reference", "the folder of its pictures"), ("annotations", "its file of captions")):
        if not getattr(scores, key):
            raise ValueError(f"protocol={wanted.name} needs COCO: evaluate.scores.{key}=PATH, {what}")
    return TakeCoco(
        TakeCocoConfig(
            protocol=wanted.name, pictures=scores.reference, annotations=scores.annotations, ids=scores.ids,
            images=samples.images, rows_per_shard=samples.rows_per_shard, workers=samples.workers,
        )
    )  # fmt: skip


def _samples(config: Config, wanted: Protocol | None, step: int = 0, originals: bool = False) -> Stage:
    samples = config.evaluate.samples
    if originals and config.prompts:
        raise ValueError(f"protocol={config.protocol} has its own prompts: leave prompts= out")
    quantisation = wanted.quantisation if wanted else samples.quantisation
    asked = replace(
        samples, model=config.model, step=step, protocol=config.protocol, prompts=config.prompts,
        quantisation=quantisation,
    )  # fmt: skip
    return SampleImages(asked, originals)


def _reconstructions(
    config: Config, wanted: Protocol | None, real: RealImagesConfig, step: int, originals: bool
) -> Stage:
    samples = config.evaluate.samples
    if config.prompts or samples.sets > 1:
        raise ValueError("a reconstruction has no prompts, and one set: leave prompts= and sets= out")
    return ReconstructImages(
        ReconstructImagesConfig(
            model=config.model, step=step, real=real,
            decoder_steps=samples.decoder_steps, solver=samples.solver,
            quantisation=wanted.quantisation if wanted else samples.quantisation, seed=samples.seed,
            lpips_weights=config.evaluate.scores.lpips_weights,
            compute=samples.compute, workers=samples.workers,
        ),
        originals,
    )  # fmt: skip


def _notes(config: Config) -> tuple[str, ...]:
    """Whether a judge is the model's own encoder, which sees its mistakes least."""
    scores = config.evaluate.scores
    judges = [(ENCODER, scores.encoder), *((judge.name, judge.folder) for judge in scores.encoders)]
    own = _weights(f"{config.model}/tokenizer/encoder") or _weights(f"{config.model}/encoder")
    return tuple(
        f"The network {name} is the model's own frozen encoder; another judge would be stricter."
        for name, folder in judges
        if own and folder and _weights(folder) == own
    )


def _weights(folder: str) -> str:
    """Digest of a folder's weights; "" where there are none here."""
    file = find(f"{folder}/model.safetensors")
    return folder_digest(file) if file else ""
