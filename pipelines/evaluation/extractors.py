"""What both evaluations judge by: validation images, networks that look at images, and training images.

Free of torch until an evaluation runs: its settings are part of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import required
from pipelines.dag.workspace import Workspace
from reptok.bounds import Count
from reptok.metrics.versions import VERSIONS

if TYPE_CHECKING:
    from pipelines.evaluation.dataset_view import DatasetView
    from pipelines.evaluation.feature_bank import FeatureBank
    from reptok.encoder.ssl import SSLEncoder
    from reptok.metrics.features import EncoderFeatures, FeatureExtractor


WEIGHTS_FILE = {"reference": "file"}


@dataclass(frozen=True, kw_only=True)
class ExtractorsConfig:
    """By what to judge.

    Attributes:
        bank_images: training images at most for recognition, nearest neighbours and the mean images.
        neighbours: k of the k-nearest-neighbour recognition.
        inception_weights: file of the FID Inception's weights; without it there is no FID.
        batch_size: images at a time.
        device: torch device.
        metrics: what each metric means, by its version.
    """

    bank_images: Count = 2000
    neighbours: Count = 10
    inception_weights: str = field(default="", metadata=WEIGHTS_FILE)
    batch_size: Count = insignificant(50)
    device: str = insignificant("cpu")
    metrics: dict[str, Count] = field(default_factory=lambda: dict(VERSIONS))

    @property
    def notes(self) -> list[str]:
        """What cannot be judged, with the reason."""
        if self.inception_weights:
            return []
        return [
            "No FID: the weights of the Inception network were not given. The Frechet distance here is "
            "on the frozen encoder's features and compares only with itself."
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
        cls, dataset: Artifact, encoder: SSLEncoder, images: int, config: ExtractorsConfig, out: Workspace
    ) -> Extractors:
        """Open the dataset and let the frozen encoder look at its training images.

        Args:
            dataset: the `dataset` artifact.
            encoder: the frozen encoder that looks at the images.
            images: validation images, evenly spread over the split.
            config: by what else to judge.
            out: whose log is told the progress.

        Raises:
            ValueError: the dataset has no validation or no training samples.
        """
        from pipelines.evaluation.dataset_view import DatasetView
        from pipelines.evaluation.feature_bank import FeatureBank
        from reptok.metrics.features import EncoderFeatures
        from reptok.metrics.inception import InceptionFeatures

        view = DatasetView(dataset, "val", images)
        training = DatasetView(dataset, "train", config.bank_images)
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
