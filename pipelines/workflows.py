"""The named workflows: which stages there are, and what of the configuration each one gets.

Their order follows from the artifacts that they name (`pipelines/dag/graph.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from examples.photographs.photograph_folder import PhotographFolder
from examples.photographs.photograph_web import PhotographWeb
from examples.photographs.subjects import SUBJECTS
from examples.zoo.pretrain_encoder import PretrainEncoder
from examples.zoo.train_autoencoder import TrainAutoencoder
from examples.zoo.train_captioner import TrainCaptioner
from examples.zoo.train_class_generator import TrainClassGenerator
from examples.zoo.train_text_encoder import TrainTextEncoder
from pipelines.configuration.schema import Config
from pipelines.dag.reference import folder_digest, required
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
from pipelines.stages.weights import digest
from pipelines.stages.wrap_autoencoder import WrapAutoencoder, WrapAutoencoderConfig
from reptok.configs import GeneratorConfig, LatentTokenizerConfig

FOUNDATIONS = ("vae", "encoder", "text_encoder", "captioner")


def build(config: Config) -> list[Stage]:
    """The stages of `config.workflow`, in no particular order.

    Raises:
        ValueError: The configuration lacks what the workflow needs.
    """
    return {"t2i": t2i, "class_conditional": class_conditional, "zoo": zoo}[config.workflow](config)


def t2i(config: Config) -> list[Stage]:
    """Text to image: URLs, images, captions, both trainings, evaluation, one published model."""
    return [*from_the_web(config), *model(config)]


def class_conditional(config: Config) -> list[Stage]:
    """A folder of labelled pictures takes the place of the web, and labels that of captions."""
    settings, photographs = config.data.import_images, config.data.web
    if settings and settings.folder:
        if not settings.listing:  # else the classes were counted when the configuration was composed
            settings = replace(settings, listing=_listing(config.generator, settings))
        made: list[Stage] = [ImportImages(settings)]
    elif settings and photographs:
        made = [PhotographFolder(photographs), ImportImages(settings, ("pictures",))]
    else:
        raise ValueError(
            f"workflow=class_conditional (experiment={config.experiment}) reads a folder of pictures, and "
            "the data name none: data=folder data.import_images.folder=<folder of classes>"
        )
    return [*made, *model(config)]


def _listing(generator: GeneratorConfig, settings: ImportImagesConfig) -> str:
    """Digest of what a folder of pictures holds, and whether its classes are those that were typed."""
    pictures = open_source(settings.folder, settings.layout)
    if generator.condition == "class" and pictures.num_classes not in (None, generator.num_classes):
        raise ValueError(
            f"generator.num_classes={generator.num_classes} contradicts data.import_images.folder="
            f"{settings.folder}, which has {pictures.num_classes} classes; leave generator.num_classes out"
        )
    return pictures.digest()


def zoo(config: Config) -> list[Stage]:
    """Train the embedded default's foundations, and the demo's models longer, on more crops."""
    foundations: list[Stage] = [
        TrainAutoencoder(config.zoo.autoencoder),
        PretrainEncoder(config.zoo.encoder),
        TrainTextEncoder(config.zoo.text_encoder),
        TrainCaptioner(config.zoo.captioner),
    ]
    made = FOUNDATIONS if config.zoo.foundations else ()
    labelled = replace(
        config.generator, condition="class", num_classes=len(SUBJECTS), text_dim=0, num_learnable_tokens=0
    )
    by_class = TrainClassGenerator(TrainGeneratorConfig(generator=labelled, train=config.train.generator))
    return [*(foundations if made else ()), *from_the_web(config, made), *model(config, made), by_class]


def from_the_web(config: Config, made: tuple[str, ...] = ()) -> list[Stage]:
    """From a list of URLs to a dataset with captions; the demo brings its own web."""
    data, looks = config.data, config.captioner.model
    writer = tuple(kind for kind in ("captioner",) if kind in made and looks)
    weights = "" if writer else digest(looks, "captioner.model.path")
    if not (data.web or data.select_urls.sources):
        raise ValueError(
            f"workflow={config.workflow} (experiment={config.experiment}) reads a list of URLs, and the data "
            "name none (data.select_urls.sources): choose data=coyo or data=demo, or "
            "workflow=class_conditional"
        )
    web: list[Stage] = [PhotographWeb(data.web)] if data.web else []
    return [
        *web,
        SelectUrls(data.select_urls),
        Download(data.download),
        Caption(CaptionConfig(captioner=config.captioner, weights_digest=weights), writer),
        ShardDataset(data.shard),
    ]


def model(config: Config, made: tuple[str, ...] = ()) -> list[Stage]:
    """From a dataset to a published model; `made` are the frozen networks that other stages make."""
    frozen = tuple(kind for kind in ("vae", "encoder") if kind in made)
    language = tuple(kind for kind in ("text_encoder",) if kind in made)
    text_encoder = config.text_encoder if config.generator.condition == "text" else None
    text_digest = "" if language else digest(text_encoder, "text_encoder.path")
    vae_digest = "" if frozen else digest(config.vae, "vae.path")
    weights = vae_digest + ("" if frozen else digest(config.encoder, "encoder.path"))
    text: dict[str, Any] = {"text_encoder": text_encoder, "weights_digest": text_digest}
    generator = TrainGeneratorConfig(generator=config.generator, train=config.train.generator, **text)
    evaluation = replace(config.evaluate.generator, **text)
    tokens: list[Stage] = [
        EncodeTokens(EncodeTokensConfig(compute=config.encode.compute, workers=config.encode.workers)),
        TrainGenerator(generator, language),
    ]
    if config.tokenizer == "latent":
        patches = LatentTokenizerConfig(
            autoencoder=config.vae, image_size=config.data.image_size, patch_size=config.decoder.patch_size
        )
        return [
            WrapAutoencoder(WrapAutoencoderConfig(tokenizer=patches, weights_digest=vae_digest)),
            *tokens,
            EvaluateGenerator(replace(evaluation, judge=config.encoder), language),
            Publish(replace(config.evaluate.publish, **text), language, ("generator_report",)),
        ]
    latents = EncodeLatentsConfig(
        vae=config.vae, encoder=config.encoder, weights_digest=weights,
        compute=config.encode.compute, workers=config.encode.workers,
    )  # fmt: skip
    tokenizer = TrainTokenizerConfig(
        encoder=config.encoder, decoder=config.decoder, vae=config.vae, weights_digest=weights,
        train=config.train.tokenizer, preservation_weight=config.train.preservation_weight,
        draws=config.train.draws, decoder_first_steps=config.train.decoder_first_steps,
    )  # fmt: skip
    for group in ("tokenizer", "generator"):
        for name in ("inception_weights", "lpips_weights", "clip_weights"):
            if file := getattr(getattr(config.evaluate, group), name, ""):
                required(file, f"evaluate.{group}.{name}")
    shown = config.evaluate.tokenizer.reference_tokenizer
    reference = folder_digest(required(shown, "evaluate.tokenizer.reference_tokenizer")) if shown else ""
    return [
        EncodeLatents(latents, frozen),
        TrainTokenizer(tokenizer, frozen),
        *tokens,
        EvaluateTokenizer(replace(config.evaluate.tokenizer, reference_digest=reference)),
        EvaluateGenerator(evaluation, language),
        Publish(replace(config.evaluate.publish, **text), language),
    ]


def summarise(config: Config, results: Sequence[StageResult]) -> None:
    """Print what was done, the scores, and where to look."""
    from pipelines.reports.summary import summarise as print_summary

    print_summary(results)
