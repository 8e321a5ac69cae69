"""The workflows: which stages there are, and what of the configuration each one gets.

Those of the product follow from where pictures come from and from who captions them.

Their order follows from the artifacts that they name (`pipelines/dag/graph.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipelines import registry
from pipelines.configuration import start, words
from pipelines.configuration.derived import SCORING
from pipelines.configuration.schema import Config
from pipelines.configuration.start import init_for
from pipelines.dag.reference import ARTIFACT, required
from pipelines.dag.stage import Stage, StageResult
from pipelines.scoring import evaluate
from pipelines.sources.hub import is_hub
from pipelines.stages.caption import Caption, CaptionConfig
from pipelines.stages.download import Download
from pipelines.stages.encode_latents import EncodeLatents, EncodeLatentsConfig
from pipelines.stages.encode_tokens import EncodeTokens, EncodeTokensConfig
from pipelines.stages.evaluate_generator import EvaluateGenerator
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizer
from pipelines.stages.filter_images import ChosenFilters, FilterImages
from pipelines.stages.import_images import ImportImages, ImportToCaption
from pipelines.stages.index_captions import IndexCaptions
from pipelines.stages.publish import Publish
from pipelines.stages.select_urls import SelectUrls
from pipelines.stages.shard import ShardDataset
from pipelines.stages.train_generator import TrainGenerator, TrainGeneratorConfig
from pipelines.stages.train_tokenizer import TrainTokenizer, TrainTokenizerConfig
from pipelines.stages.wrap_autoencoder import WrapAutoencoder, WrapAutoencoderConfig
from reptok.configs import LatentTokenizerConfig

OWN = "reptok"


def build(config: Config) -> list[Stage]:
    """The stages of `config.workflow`, in no particular order; what they refer to is made by plug-ins.

    Raises:
        ValueError: There is no such workflow, or the configuration lacks what it needs.
    """
    installed = registry.workflows()
    for key in ("model", "protocol", "prompts", "kept"):
        if getattr(config, key) and config.workflow != SCORING:
            raise ValueError(
                f"{key}= is for experiment=evaluate, which scores a model; init= starts a training from one"
            )
    if config.workflow == OWN:
        stages = reptok(config)
    elif config.workflow == SCORING:
        stages = evaluate(config, dataset_of)
    elif config.workflow in installed:
        entry = installed[config.workflow]
        stages = entry.build(config, config.extras.get(entry.key) or entry.config())
    else:
        known = ", ".join([OWN, SCORING, *installed])
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


def reptok(config: Config) -> list[Stage]:
    """From the chosen source to a dataset, both trainings, evaluation, one published model."""
    return [*dataset_of(config), *model_of(config)]


def dataset_of(config: Config) -> list[Stage]:
    """From URLs or a folder to a dataset, over tables of images where somebody is to caption or judge them.

    Raises:
        ValueError: The data name no source.
    """
    data, join = config.data, config.data.captions.join
    index: list[Stage] = [IndexCaptions(join)] if join else []
    joined = join is not None and not data.folder  # what is imported is joined when it is read
    filters = data.filter_images.chosen(registry.chosen_filters(config.extras))
    judging = ChosenFilters(filters=filters, workers=data.filter_images.workers)
    captioned: list[Stage] = [
        *([FilterImages(judging)] if filters else []),
        Caption(CaptionConfig(captioner=config.captioner), joined, judged=bool(filters)),
        ShardDataset(data.shard, judged=bool(filters)),
    ]
    if data.folder:
        settings = replace(data.import_images, captions=data.captions)
        if not (settings.listing or is_hub(data.folder) or data.folder.startswith(ARTIFACT)):
            required(data.folder, "data.folder")
        if config.captioner.model is None and not filters:
            return [*index, ImportImages(settings)]
        return [*index, ImportToCaption(settings), *captioned]
    if not data.select_urls.sources:
        raise ValueError(
            f"experiment={config.experiment}: the data name no source; give data.folder=<pictures> or a "
            "list of URLs (data.select_urls.sources)"
        )
    return [*index, SelectUrls(data.select_urls), Download(data.download), *captioned]


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
            EvaluateGenerator(replace(evaluation, judge=evaluation.judge or config.encoder)),
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
    notes = (f"note: {note}" for note in config.notes)
    return [*notes, *start.remarks(config), *words.remarks(config)]


def summarise(config: Config, results: Sequence[StageResult]) -> None:
    """Print what was done, the scores, and where to look."""
    from pipelines.reports.summary import shown_at
    from pipelines.reports.summary import summarise as print_summary

    print_summary(results, curves=shown_at(config.tracking, config.root))


def note(results: Sequence[StageResult]) -> str:
    """What MLflow shows on a run's page (Markdown)."""
    from pipelines.reports.summary import markdown

    return markdown(results)
