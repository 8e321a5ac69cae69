"""Stage: the scores of sampled images against a reference set, by protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import required
from pipelines.dag.stage import Resources, Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Score
from pipelines.evaluation.sampling import SampleShards
from reptok.bounds import Count
from reptok.metrics.protocols import PROTOCOLS, full_name, protocol

if TYPE_CHECKING:
    from reptok.metrics.score import Network
    from reptok.metrics.uncertainty import Estimate

WEIGHTS = {"reference": "file"}
HIGHER = ("inception_score", "precision", "recall")
BESIDE = ("_of_halves",)


@dataclass(frozen=True, kw_only=True)
class ScoreSamplesConfig:
    """What to hold samples against, and who looks.

    Attributes:
        protocol: a name of `reptok.metrics.protocols.PROTOCOLS`; "" where the score carries its number only.
        reference: real images, or their moments: an `.npz` or `.tar` file.
        inception_weights: file of the FID Inception's weights, as torch-fidelity publishes it.
        encoder: a timm folder that looks instead; its distance is no FID.
        batch_size: images at a time.
        device: torch device.
    """

    protocol: str = ""
    reference: str = field(default="", metadata=WEIGHTS)
    inception_weights: str = field(default="", metadata=WEIGHTS)
    encoder: str = field(default="", metadata={"reference": "network"})
    batch_size: Count = 50
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.protocol:
            protocol(self.protocol)


class ScoreSamples(Stage):
    """Let one network look at samples and reference, and compare."""

    name, inputs, output = "score_samples", ("samples",), "scores"
    scored = True
    modules = ("reptok.metrics.features", "reptok.metrics.inception", "reptok.metrics.score")
    config: ScoreSamplesConfig

    def __init__(self, config: ScoreSamplesConfig):
        """It computes in the driver's process.

        Raises:
            ValueError: not exactly one network is named.
        """
        super().__init__(config)
        if bool(config.inception_weights) == bool(config.encoder):
            raise ValueError(
                "who looks at the samples? evaluate.scores.inception_weights=FILE for FID, or "
                "evaluate.scores.encoder=FOLDER for a distance of its own name"
            )
        self.resources = Resources(gpus=float(config.device != "cpu"))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.metrics.score import reference_of, scores, see

        config = self.config
        wanted = PROTOCOLS.get(config.protocol)
        network = self._network()
        reference = required(config.reference, "evaluate.scores.reference")
        how = {"crop": wanted.crop, "side": wanted.size} if wanted else {}

        def look(images, title="reference images"):  # type: ignore[no-untyped-def]
            def progress(done: int) -> None:
                out.log.progress(done, len(images), title)

            return see(images, network, config.batch_size, progress)

        held = reference_of(reference, network, look, **how)
        seen = look(SampleShards(inputs["samples"]), "samples")
        found = {
            full_name(metric, wanted, reference.stem, len(seen)): estimate
            for metric, estimate in scores(seen, held, network.name)
        }
        values = {name: estimate.value for name, estimate in found.items()}
        shown = [_score(name, estimate) for name, estimate in found.items()]
        against = wanted.reference if wanted else reference.name
        Evaluation(
            title="Samples against a reference set",
            lead=f"{len(seen):,} samples against {against}. A name holds its protocol, and the number of "
            "samples where that is not the protocol's.",
            scores=shown,
            figures=[],
            notes=[],
            metrics=values,
        ).write(out)
        return values

    def _network(self) -> Network:
        if self.config.inception_weights:
            from reptok.metrics.inception import InceptionFeatures

            return InceptionFeatures(
                required(self.config.inception_weights, "inception_weights"), self.config.device
            )
        from reptok.metrics.features import EncoderFeatures

        return EncoderFeatures.from_folder(required(self.config.encoder, "encoder"), self.config.device)


def _score(name: str, estimate: Estimate) -> Score:
    metric = name.partition("/")[0]
    higher = None if metric.endswith(BESIDE) else metric.startswith(HIGHER)
    return Score(
        name=name,
        value=estimate.value,
        higher_is_better=higher,
        images=estimate.images,
        error=estimate.known_error,
        headline=metric in ("gfid", "rfid"),
    )
