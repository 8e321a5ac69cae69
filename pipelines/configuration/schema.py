"""The root of the configuration: what `conf/` fills in and `workflows.py` builds stages from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines import registry
from pipelines.captions.caption import CaptionerConfig
from pipelines.configuration.construct import ConfigError
from pipelines.configuration.costs import EstimateConfig
from pipelines.configuration.derived import derive
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import WorkerResources
from pipelines.dag.tracking import TrackingConfig
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.judges import ScoresConfig
from pipelines.evaluation.sampling import SampleImagesConfig
from pipelines.sources.captions import CaptionsConfig
from pipelines.stages.download import DownloadConfig
from pipelines.stages.evaluate_generator import EvaluateGeneratorConfig
from pipelines.stages.evaluate_tokenizer import EvaluateTokenizerConfig
from pipelines.stages.filter_images import FilterImagesConfig
from pipelines.stages.import_images import ImportImagesConfig
from pipelines.stages.publish import PublishConfig
from pipelines.stages.select_urls import SelectUrlsConfig
from pipelines.stages.shard import ShardConfig
from reptok.bounds import Count, Number, Pixels, Whole
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, GeneratorConfig, TextEncoderConfig
from reptok.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they are stored.

    Attributes:
        image_size: Side of the training images in pixels; the YAML hands it on to the stages.
        folder: Pictures that exist: a folder of picture files, of parquet files or of WebDataset tars, a
            dataset of the hub (hf://datasets/owner/name), or artifact:KIND; "" where URLs are downloaded.
        parts: Further lists of URLs by name, which came later than `select_urls.sources`.
        captions: Where the source's own captions stand.
        select_urls: The URL list, and which of its rows are taken.
        download: How images are fetched and resized.
        filter_images: Which filters look at them; without any there is no such stage.
        shard: How samples are stored.
        import_images: How the pictures of `folder` are read and stored.
    """

    image_size: Pixels
    folder: str = ""
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    select_urls: SelectUrlsConfig = field(default_factory=SelectUrlsConfig)
    download: DownloadConfig = field(default_factory=DownloadConfig)
    filter_images: FilterImagesConfig = field(default_factory=FilterImagesConfig)
    shard: ShardConfig = field(default_factory=ShardConfig)
    import_images: ImportImagesConfig = field(default_factory=ImportImagesConfig)


@dataclass(frozen=True, kw_only=True)
class EncodeGroup:
    """How the frozen networks run over the dataset, for latents and for tokens."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True, kw_only=True)
class TrainGroup:
    """Both trainings; for the tokenizer's own three see `pipelines/stages/train_tokenizer.py`."""

    tokenizer: TrainConfig
    generator: TrainConfig
    preservation_weight: Number = 0.1
    draws: Count = 1
    decoder_first_steps: Whole = 0


@dataclass(frozen=True, kw_only=True)
class EvaluateGroup:
    """What the two evaluations and the report measure, and by which encoder both judge.

    Attributes:
        judge: None for the tokenizer's own encoder; where that has none (tokenizer=latent), for `encoder`.
    """

    judge: EncoderConfig | None = None
    tokenizer: EvaluateTokenizerConfig = field(default_factory=EvaluateTokenizerConfig)
    generator: EvaluateGeneratorConfig = field(default_factory=EvaluateGeneratorConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    samples: SampleImagesConfig = field(default_factory=SampleImagesConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run depends on.

    Attributes:
        experiment: Name of the composed experiment.
        workflow: "reptok", whose stages follow from the source (`data`), the captioner and the condition
            (`generator`), or one that is installed.
        extras: What installed sources, workflows and filters are configured with, by key.
        device: "cpu" or "cuda": where every network computes; see `pipelines/configuration/device.py`.
        root: Folder or fsspec URL of the artifacts.
        model: A published model (a folder or a hub id) that workflow=evaluate asks and scores.
        protocol: By what it is scored; see `reptok/metrics/protocols.py`.
        prompts: A file of texts that it is asked for, one a line.
        kept: Score also the weights that its training kept on the way, for a curve over steps.
        init: A published model (a folder, its tokenizer/ or generator/ alone, or a hub id) that the trainings
            start from: what has a place there is taken, the rest is fresh.
        until: Run this stage and what it needs.
        only: Run this stage alone; its inputs must be published.
        force: Run this stage again although it is published.
        chain: Let stages that work shard by shard hand each shard on as soon as it is done; the artifacts are
            the same.
        tokenizer: "reptok", or "latent" for the patches of the VAE's latent, which the paper's attention
            baselines (DiT, SiT) generate; nothing of the tokenizer trains then.
        notes: What follows and is worth knowing, in sentences; `plan` and `run` show them.
        estimate: The cluster that `plan.py` reckons hours, bytes and cost for.
    """

    experiment: str
    workflow: str = "reptok"
    device: Literal["cpu", "cuda"] = "cpu"
    root: str = "runs"
    model: str = ""
    protocol: str = ""
    prompts: str = ""
    kept: bool = False
    init: str = ""
    until: str | None = None
    only: str | None = None
    force: str | None = None
    chain: bool = True
    tokenizer: Literal["reptok", "latent"] = "reptok"
    data: DataConfig
    encoder: EncoderConfig
    vae: AutoencoderConfig
    decoder: DecoderConfig
    generator: GeneratorConfig
    text_encoder: TextEncoderConfig | None = None
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    encode: EncodeGroup = field(default_factory=EncodeGroup)
    train: TrainGroup
    evaluate: EvaluateGroup = field(default_factory=EvaluateGroup)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    estimate: EstimateConfig | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    extras: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @staticmethod
    def derive(values: dict[str, Any], extras: Mapping[str, Any]) -> dict[str, Any]:
        """See `pipelines/configuration/derived.py`."""
        return derive(values, extras)

    @staticmethod
    def extra_schemas() -> dict[str, type]:
        """Keys of installed sources, workflows and filters."""
        if not registry.plugins():
            raise ConfigError(
                "no source and no workflow is installed, not even this package's own: after a change of "
                "pyproject.toml run `make`, or `.venv/bin/uv pip install --no-deps -e .`"
            )
        return {plugin.key: plugin.config for plugin in registry.plugins()} | dict(registry.filters())

    @staticmethod
    def extra_folders() -> list[Path]:
        """Their YAML."""
        return [plugin.conf for plugin in registry.plugins() if plugin.conf is not None]
