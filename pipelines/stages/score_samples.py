"""Stage: the scores of sampled images against a reference set, by protocol."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.looking import reference_of, seen
from pipelines.evaluation.results import Evaluation, Score
from pipelines.evaluation.sampling import sample_files
from reptok.metrics.protocols import PROTOCOLS, Task, full_name, protocol

if TYPE_CHECKING:
    from reptok.metrics.uncertainty import Estimate

HIGHER = ("inception_score", "precision", "recall", "psnr", "ssim")
BESIDE = ("_of_halves",)


@dataclass(frozen=True, kw_only=True)
class ScoreSamplesConfig:
    """By what name.

    Attributes:
        protocol: a name of `reptok.metrics.protocols.PROTOCOLS`; "" where the score carries its number only.
        reference: name of the real images, for scores without a protocol.
        network: name of the network that looked.
        task: whether the samples are reconstructions of the real images.
    """

    protocol: str = ""
    reference: str = ""
    network: str = "inception"
    task: Task = "generation"

    def __post_init__(self) -> None:
        if self.protocol:
            protocol(self.protocol)


class ScoreSamples(Stage):
    """Compare what a network said of samples and of real images; of several sets, the mean and its error."""

    name, inputs, output = "score_samples", ("samples", "sample_features", "reference_features"), "scores"
    scored = True
    modules = ("reptok.metrics.score",)
    config: ScoreSamplesConfig

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.metrics.uncertainty import over_seeds

        config, protocol = self.config, PROTOCOLS.get(self.config.protocol)
        sets = list(self._sets(inputs))
        images = min(number for number, _ in sets)
        found = {}
        for metric, estimate in sets[0][1].items():
            if len(sets) > 1:
                estimate = over_seeds([scores[metric].value for _, scores in sets], images)
            found[full_name(metric, protocol, config.reference, images, config.task)] = estimate
        values = {name: estimate.value for name, estimate in found.items()}
        against = protocol.reference if protocol else config.reference
        rebuilt = config.task == "reconstruction"
        lead = (
            f"{images:,} {'reconstructions' if rebuilt else 'samples'} against {against}. A name holds its "
            "protocol, and the number of images where that is not the protocol's."
        )
        if len(sets) > 1:
            lead += f" Means of {len(sets)} sets, each of its own noise, with the errors of these means."
        Evaluation(
            title="Reconstructions of a set of images" if rebuilt else "Samples against a reference set",
            lead=lead,
            scores=[_score(name, estimate) for name, estimate in found.items()],
            figures=[],
            notes=[],
            metrics=values,
        ).write(out)
        return values

    def _sets(self, inputs: Mapping[str, Artifact]) -> Iterator[tuple[int, dict[str, Estimate]]]:
        """The number of images and all scores of one set after the other."""
        from reptok.metrics.score import scores

        real, samples = reference_of(inputs["reference_features"]), inputs["samples"]
        files: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for number, found in enumerate(sample_files(samples)):
            files[found.set].append((number, found.file))
        for _, parts in sorted(files.items()):
            features = seen(inputs["sample_features"], [number for number, _ in parts])
            near = _per_image(samples, [name for _, name in parts])
            yield len(features), {**near, **dict(scores(features, real, self.config.network))}


def _per_image(samples: Artifact, names: Sequence[str]) -> dict[str, Estimate]:
    """Means of what stands beside each image: how near a reconstruction came."""
    import torch

    from reptok.metrics.reconstruction import PER_IMAGE
    from reptok.metrics.uncertainty import mean

    values: dict[str, list[float]] = defaultdict(list)
    for name in names:
        for line in samples.read_bytes(name.replace(".npz", ".jsonl")).splitlines():
            row = json.loads(line)
            for metric in PER_IMAGE.keys() & row.keys():
                values[metric].append(row[metric])
    return {metric: mean(torch.tensor(values[metric])) for metric in PER_IMAGE if metric in values}


def _score(name: str, estimate: Estimate) -> Score:
    metric = name.partition("/")[0]
    higher = None if metric.endswith(BESIDE) else metric.startswith(HIGHER)
    return Score(
        name=name,
        value=estimate.value,
        unit="dB" if metric == "psnr" else "",
        higher_is_better=higher,
        images=estimate.images,
        error=estimate.known_error,
        headline=metric in ("gfid", "rfid"),
    )
