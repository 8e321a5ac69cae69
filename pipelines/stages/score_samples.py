"""Stage: the scores of sampled images against a reference set, by protocol."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.looking import reference_of, seen
from pipelines.evaluation.originals import KIND, About, overlap_note
from pipelines.evaluation.results import Evaluation, Score
from pipelines.evaluation.sampling import SampleFile, sample_files
from reptok.metrics.protocols import INCEPTION, PROTOCOLS, RATIO, Task, full_name, protocol

if TYPE_CHECKING:
    from reptok.metrics.uncertainty import Estimate

HIGHER = ("inception_score", "precision", "recall", "psnr", "ssim", "clip_score")
BESIDE = ("_of_halves", "_of_real")
NOTES = {
    "clip_score": "100 max(cos, 0), mean over pairs of image and text",
    "clip_score_of_real": "the real images with their captions",
}
RATIO_NOTE = (
    "distance from half of the real images, by that of the other half; the mean over the networks named"
)


@dataclass(frozen=True, kw_only=True)
class ScoreSamplesConfig:
    """By what name.

    Attributes:
        protocol: a name of `reptok.metrics.protocols.PROTOCOLS`; "" where the score carries its number only.
        reference: name of the real images, for scores without a protocol.
        networks: names of those that looked.
        task: whether the samples are reconstructions of the real images.
        notes: what else is to be known of the judges, in sentences.
    """

    protocol: str = ""
    reference: str = ""
    networks: tuple[str, ...] = (INCEPTION,)
    task: Task = "generation"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protocol:
            protocol(self.protocol)


class ScoreSamples(Stage):
    """Compare what networks said of samples and of real images; of several sets, the mean and its error."""

    name, output = "score_samples", "scores"
    scored = True
    version = 2
    modules = ("reptok.metrics.ratio", "reptok.metrics.score", "reptok.metrics.uncertainty")
    config: ScoreSamplesConfig

    def __init__(self, config: ScoreSamplesConfig, originals: bool = False):
        """Read the features of every network; of `originals` the protocol's name, too."""
        looks = [f"{what}_features_{name}" for name in config.networks for what in ("sample", "reference")]
        self.inputs = ("samples", *looks, *((KIND,) if originals else ()))
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.metrics.uncertainty import over_seeds

        config, named = self.config, PROTOCOLS.get(self.config.protocol)
        notes = list(config.notes)
        if KIND in inputs:
            about = About.read(inputs[KIND])
            named = replace(PROTOCOLS[config.protocol], name=about.name, task=config.task)
            notes += [f"SHA-256 of the list of real images: {about.digest}.", overlap_note(inputs["samples"])]
        sets = self._sets(inputs)
        images = min(number for number, _ in sets)
        found = {}
        for metric, estimate in sets[0][1].items():
            if len(sets) > 1:
                estimate = over_seeds([scores[metric].value for _, scores in sets], images)
            found[full_name(metric, named, config.reference, images, config.task)] = estimate
        values = {name: estimate.value for name, estimate in found.items()}
        against = named.reference if named else config.reference
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
            notes=notes,
            metrics=values,
        ).write(out)
        return values

    def _sets(self, inputs: Mapping[str, Artifact]) -> list[tuple[int, dict[str, Estimate]]]:
        """The number of images and all scores of every set; one network's features are held at a time."""
        from reptok.metrics.ratio import over_networks
        from reptok.metrics.score import scores

        samples = inputs["samples"]
        files: dict[int, list[tuple[int, SampleFile]]] = defaultdict(list)
        for number, found in enumerate(sample_files(samples)):
            files[found.set].append((number, found))
        sets = [parts for _, parts in sorted(files.items())]
        near = [_per_image(samples, [part.file for _, part in parts]) for parts in sets]
        images = [sum(part.rows for _, part in parts) for parts in sets]
        for network in self.config.networks:
            real = reference_of(inputs[f"reference_features_{network}"])
            for index, parts in enumerate(sets):
                features = seen(inputs[f"sample_features_{network}"], [number for number, _ in parts])
                images[index] = len(features)
                near[index] |= dict(scores(features, real, network))
        for found_of_set in near:
            found_of_set |= dict(over_networks(found_of_set, self.config.networks))
        return list(zip(images, near, strict=True))


def _per_image(samples: Artifact, names: Sequence[str]) -> dict[str, Estimate]:
    """Means of what stands beside each image: how near a reconstruction came."""
    import torch

    from reptok.metrics.reconstruction import PER_IMAGE
    from reptok.metrics.uncertainty import mean

    metrics = {*PER_IMAGE, "lpips"}
    values: dict[str, list[float]] = defaultdict(list)
    for name in names:
        for line in samples.read_bytes(name.replace(".npz", ".jsonl")).splitlines():
            row = json.loads(line)
            for metric in metrics & row.keys():
                values[metric].append(row[metric])
    return {metric: mean(torch.tensor(values[metric])) for metric in sorted(values)}


def _score(name: str, estimate: Estimate) -> Score:
    metric = name.partition("/")[0]
    ratio = metric[1:].startswith(f"{RATIO}_")
    higher = None if metric.endswith(BESIDE) else metric.startswith(HIGHER)
    return Score(
        name=name,
        value=estimate.value,
        unit="dB" if metric == "psnr" else "",
        higher_is_better=higher,
        images=estimate.images,
        error=estimate.known_error,
        note=RATIO_NOTE if ratio else NOTES.get(metric, ""),
        headline=metric in ("gfid", "rfid") or (ratio and metric.count("_") > 1),
    )
