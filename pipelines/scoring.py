"""The workflow that scores a published model by its samples or by reconstructions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipelines.configuration.schema import Config
from pipelines.dag.reference import required
from pipelines.dag.stage import Stage
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.reconstructing import ReconstructImagesConfig
from pipelines.stages.look_at_images import LookAtReference, LookAtReferenceConfig, LookAtSamples
from pipelines.stages.reconstruct_images import ReconstructImages
from pipelines.stages.sample_images import SampleImages
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from reptok.metrics.protocols import Protocol, protocol


def evaluate(config: Config) -> list[Stage]:
    """Samples or reconstructions of a published model and, where a reference is given, their scores.

    Raises:
        ValueError: A protocol without the reference that it compares with, or settings that do not go with
            what is made.
        FileNotFoundError: There is no such reference.
    """
    scores = config.evaluate.scores
    wanted = protocol(config.protocol) if config.protocol else None
    task = wanted.task if wanted else scores.task
    if not scores.reference:
        if wanted:
            raise ValueError(
                f"protocol={wanted.name} compares with {wanted.reference}: "
                "give that with evaluate.scores.reference=PATH"
            )
        if task == "reconstruction":
            raise ValueError("what is to be reconstructed? evaluate.scores.reference=PATH names the images")
        return [_samples(config, wanted)]
    required(scores.reference, "evaluate.scores.reference")
    real = RealImagesConfig(
        path=scores.reference,
        crop=wanted.crop if wanted else scores.crop,
        side=wanted.size if wanted else scores.side,
        rows_per_shard=config.evaluate.samples.rows_per_shard,
    )
    if task == "reconstruction":  # against the very images that are reconstructed
        real = replace(real, images=config.evaluate.samples.images or (wanted.images if wanted else 0))
    look = scores.look
    named = ScoreSamplesConfig(
        protocol=config.protocol, reference=Path(scores.reference).stem, network=look.name, task=task
    )
    return [
        _reconstructions(config, wanted, real) if task == "reconstruction" else _samples(config, wanted),
        LookAtSamples(look),
        LookAtReference(LookAtReferenceConfig(look=look, real=real)),
        ScoreSamples(named),
    ]


def _samples(config: Config, wanted: Protocol | None) -> Stage:
    samples = config.evaluate.samples
    quantisation = wanted.quantisation if wanted else samples.quantisation
    return SampleImages(
        replace(
            samples, model=config.model, protocol=config.protocol, prompts=config.prompts,
            quantisation=quantisation,
        )
    )  # fmt: skip


def _reconstructions(config: Config, wanted: Protocol | None, real: RealImagesConfig) -> Stage:
    samples = config.evaluate.samples
    if config.prompts or samples.sets > 1:
        raise ValueError("a reconstruction has no prompts, and one set: leave prompts= and sets= out")
    return ReconstructImages(
        ReconstructImagesConfig(
            model=config.model, real=real, decoder_steps=samples.decoder_steps, solver=samples.solver,
            quantisation=wanted.quantisation if wanted else samples.quantisation, seed=samples.seed,
            compute=samples.compute, workers=samples.workers,
        )
    )  # fmt: skip
