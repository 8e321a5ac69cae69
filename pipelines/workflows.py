"""The named workflows: which stages there are, and what of the configuration each one gets.

Their order follows from the artifacts that they name (`pipelines/dag/graph.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines import registry
from pipelines.configuration import start
from pipelines.configuration.schema import Config
from pipelines.configuration.start import init_for
from pipelines.dag.reference import ARTIFACT
from pipelines.dag.stage import Stage, StageResult
from pipelines.sources.layouts import open_source
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.download import Download
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from pipelines.stages.encode_tokens import EncodeTokens, EncodeTokensConfig
from pipelines.stages.evaluate_generator import EvaluateGenerator
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer
from pipelines.stages.import_images import ImportImages, ImportImagesConfig
from pipelines.stages.publish import Publish
from pipelines.stages.select_urls import SelectUrls
from pipelines.stages.shard import ShardDataset
from pipelines.stages.train_generator import TrainGenerator, TrainGeneratorConfig
from pipelines.stages.train_tokenizer import TrainTokenizer, TrainTokenizerConfig
from pipelines.stages.wrap_autoencoder import WrapAutoencoder, WrapAutoencoderConfig
from reptok.configs import GeneratorConfig, LatentTokenizerConfig


def build(config: Config) -> list[Stage]:
    """The stages of `config.workflow`, in no particular order; what they refer to is made by plug-ins.

    Raises:
        ValueError: There is no such workflow, or the configuration lacks what it needs.
    """
    own = {"t2i": t2i, "class_conditional": class_conditional}
    installed = registry.workflows()
    if config.workflow in own:
        stages = own[config.workflow](config)
    elif config.workflow in installed:
        entry = installed[config.workflow]
        stages = entry.build(config, config.extras.get(entry.key) or entry.config())
    else:
        known = ", ".join([*own, *installed])
        raise ValueError(f"workflow is one of {known}, not {config.workflow!r}")
    stages = registry.with_makers(stages, config.extras)
    made = {stage.output for stage in stages}
    for stage in stages:
        for kind in stage.inputs:
            if kind not in made:
                raise ValueError(
                    f"{stage.name} refers to artifact:{kind}, which no stage of workflow={config.workflow} "
                    "and of the chosen data makes; choose the data that have it, or name a file or folder"
                )
    return stages


def t2i(config: Config) -> list[Stage]:
    """Text to image: URLs, images, captions, both trainings, evaluation, one published model."""
    return [*from_the_web(config), *model_of(config)]


def class_conditional(config: Config) -> list[Stage]:
    """A folder of labelled pictures takes the place of the web, and labels that of captions."""
    settings = config.data.import_images
    if settings is None:
        raise ValueError(
            f"workflow=class_conditional (experiment={config.experiment}) reads a folder of pictures, and "
            "the data name none: data=folder data.import_images.folder=<folder of classes>"
        )
    if not settings.listing and not settings.folder.startswith(ARTIFACT):
        # else the classes were counted when the configuration was composed, or another stage makes the folder
        settings = replace(settings, listing=_listing(config.generator, settings))
    return [ImportImages(settings), *model_of(config)]


def _listing(generator: GeneratorConfig, settings: ImportImagesConfig) -> str:
    """Digest of what a folder of pictures holds, and whether its classes are those that were typed."""
    pictures = open_source(settings.folder, settings.layout)
    if generator.condition == "class" and pictures.num_classes not in (None, generator.num_classes):
        raise ValueError(
            f"generator.num_classes={generator.num_classes} contradicts data.import_images.folder="
            f"{settings.folder}, which has {pictures.num_classes} classes; leave generator.num_classes out"
        )
    return pictures.digest()


def from_the_web(config: Config) -> list[Stage]:
    """From a list of URLs to a dataset with captions."""
    data = config.data
    if not data.select_urls.sources:
        raise ValueError(
            f"workflow={config.workflow} (experiment={config.experiment}) reads a list of URLs, and the data "
            "name none (data.select_urls.sources): choose data=coyo, or "
            "workflow=class_conditional"
        )
    return [
        SelectUrls(data.select_urls),
        Download(data.download),
        Caption(CaptionConfig(captioner=config.captioner)),
        ShardDataset(data.shard),
    ]


def model_of(config: Config) -> list[Stage]:
    """From a dataset to a published model."""
    text = config.text_encoder if config.generator.condition == "text" else None
    generator = TrainGeneratorConfig(
        generator=config.generator, train=config.train.generator, text_encoder=text,
        init=init_for(config.init, "generator"),
    )  # fmt: skip
    evaluation = replace(config.evaluate.generator, text_encoder=text)
    published = replace(config.evaluate.publish, text_encoder=text)
    tokens: list[Stage] = [
        EncodeTokens(EncodeTokensConfig(compute=config.encode.compute, workers=config.encode.workers)),
        TrainGenerator(generator),
    ]
    if config.tokenizer == "latent":
        patches = LatentTokenizerConfig(
            autoencoder=config.vae, image_size=config.data.image_size, patch_size=config.decoder.patch_size
        )
        return [
            WrapAutoencoder(WrapAutoencoderConfig(tokenizer=patches)),
            *tokens,
            EvaluateGenerator(replace(evaluation, judge=config.encoder)),
            Publish(published, ("generator_report",)),
        ]
    latents = EncodeLatentsConfig(
        vae=config.vae, encoder=config.encoder, compute=config.encode.compute, workers=config.encode.workers
    )
    tokenizer = TrainTokenizerConfig(
        encoder=config.encoder, decoder=config.decoder, vae=config.vae, train=config.train.tokenizer,
        preservation_weight=config.train.preservation_weight,
        draws=config.train.draws, decoder_first_steps=config.train.decoder_first_steps,
        init=init_for(config.init, "tokenizer"),
    )  # fmt: skip
    return [
        EncodeLatents(latents),
        TrainTokenizer(tokenizer),
        *tokens,
        EvaluateTokenizer(config.evaluate.tokenizer),
        EvaluateGenerator(evaluation),
        Publish(published),
    ]


def remarks(config: Config) -> list[str]:
    """What is worth knowing of a configuration before it runs, a line each.

    Raises:
        ValueError: What it names does not fit together.
    """
    return start.remarks(config)


def summarise(config: Config, results: Sequence[StageResult]) -> None:
    """Print what was done, the scores, and where to look."""
    from pipelines.reports.summary import shown_at
    from pipelines.reports.summary import summarise as print_summary

    print_summary(results, curves=shown_at(config.tracking, config.root))
