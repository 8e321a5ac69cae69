"""What both evaluations judge by: validation images, networks that look at images, and training images.

Free of torch until an evaluation runs: its settings are part of the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import located, required
from pipelines.dag.workspace import Workspace
from reptok.bounds import Count
from reptok.configs import EncoderConfig
from reptok.metrics.versions import VERSIONS

if TYPE_CHECKING:
    from pipelines.evaluation.dataset_view import DatasetView
    from pipelines.evaluation.feature_bank import FeatureBank
    from reptok.encoder.ssl import SSLEncoder
    from reptok.image_tokenizer import ImageTokenizer
    from reptok.metrics.features import EncoderFeatures, FeatureExtractor


WEIGHTS_FILE = {"reference": "file"}


@dataclass(frozen=True, kw_only=True)
class ExtractorsConfig:
    """By what to judge.

    Attributes:
        bank_images: training images at most for recognition, nearest neighbours and the mean images.
        neighbours: k of the k-nearest-neighbour recognition.
        judge: the encoder that looks at the images; None for the tokenizer's own frozen one, which sees least
            of what the tokenizer gets wrong. `evaluate.judge` names it for both evaluations.
        inception_weights: file of the FID Inception's weights; without it there is no FID.
        batch_size: images at a time.
        device: torch device.
        metrics: what each metric means, by its version.
    """

    bank_images: Count = 2000
    neighbours: Count = 10
    judge: EncoderConfig | None = field(default=None, metadata={"optional": True})
    inception_weights: str = field(default="", metadata=WEIGHTS_FILE)
    batch_size: Count = insignificant(50)
    device: str = insignificant("cpu")
    metrics: dict[str, Count] = field(default_factory=lambda: dict(VERSIONS))

    @property
    def notes(self) -> list[str]:
        """By whom, and what cannot be judged, with the reason."""
        notes = []
        if self.judge is not None:
            notes.append("The frozen encoder that looks is the named judge, not the tokenizer's own.")
        if self.inception_weights:
            return notes
        return [
            *notes,
            "No FID: the weights of the Inception network were not given. The Frechet distance here is "
            "on the frozen encoder's features and compares only with itself.",
        ]


@dataclass(frozen=True)
class Extractors:
    """What an evaluation looks with and at.

    Attributes:
        view: the validation images.
        frozen: features of the frozen encoder.
        extractors: all that look at images: the frozen encoder, and Inception where its weights are given.
        bank: the training images as the frozen encoder sees them.
    """

    view: DatasetView
    frozen: EncoderFeatures
    extractors: list[FeatureExtractor]
    bank: FeatureBank

    @classmethod
    def gather(
        cls,
        inputs: Mapping[str, Artifact],
        tokenizer: ImageTokenizer,
        images: int,
        config: ExtractorsConfig,
        out: Workspace,
    ) -> Extractors:
        """Open the dataset and let the frozen encoder look at its training images.

        Args:
            inputs: the `dataset`, and the artifact that the judge may be.
            tokenizer: whose own encoder looks where no judge is named.
            images: validation images, evenly spread over the split.
            config: by what to judge.
            out: whose log is told the progress.

        Raises:
            ValueError: the dataset has no validation or no training samples, or there is no encoder.
        """
        from pipelines.evaluation.dataset_view import DatasetView
        from pipelines.evaluation.feature_bank import FeatureBank
        from reptok.metrics.features import EncoderFeatures
        from reptok.metrics.inception import InceptionFeatures

        encoder = _judge(tokenizer, config, inputs)
        view = DatasetView(inputs["dataset"], "val", images)
        training = DatasetView(inputs["dataset"], "train", config.bank_images)
        frozen = EncoderFeatures(encoder.features, "features of the frozen encoder")
        extractors: list[FeatureExtractor] = [frozen]
        if config.inception_weights:
            weights = required(config.inception_weights, "evaluate: inception_weights")
            extractors.append(InceptionFeatures(weights, config.device))

        def progress(done: int) -> None:
            out.log.progress(done, len(training), "training images")

        bank = FeatureBank.build(
            training, frozen, config.neighbours, config.batch_size, progress, device=config.device
        )
        return cls(view, frozen, extractors, bank)


def _judge(tokenizer: ImageTokenizer, config: ExtractorsConfig, inputs: Mapping[str, Artifact]) -> SSLEncoder:
    """The configured encoder, or the tokenizer's own frozen one."""
    from reptok.encoder.ssl import build_encoder
    from reptok.tokenizer import RepTok

    if config.judge is not None:
        return build_encoder(located(config.judge, inputs)).to(config.device).eval()
    if isinstance(tokenizer, RepTok):
        return tokenizer.encoder
    raise ValueError("this tokenizer has no encoder that could judge: name one with evaluate.judge")
