"""Stages: what one network says of samples, and of the real images that they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.looking import (
    LookAtReferenceJob,
    LookAtSamplesJob,
    LookConfig,
    write_moments,
)
from pipelines.evaluation.originals import KIND, file_shards
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.stages.tables import occupied
from reptok.metrics.protocols import INCEPTION

NETWORKS = (
    "reptok.metrics.clip_score",
    "reptok.metrics.features",
    "reptok.metrics.inception",
    "reptok.metrics.score",
)


class LookAtSamples(Stage):
    """Features of samples by one network, a file for each of theirs."""

    name, inputs, output = "look_at_samples", ("samples",), "sample_features"
    modules = NETWORKS
    config: LookConfig

    def __init__(self, config: LookConfig):
        self.name, self.output = f"{self.name}_{config.name}", f"{self.output}_{config.name}"
        super().__init__(config)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        return _look(self.config, inputs["samples"], out)


@dataclass(frozen=True, kw_only=True)
class LookAtReferenceConfig:
    """Who looks at which real images."""

    look: LookConfig = field(default_factory=LookConfig)
    real: RealImagesConfig = field(default_factory=RealImagesConfig)


class LookAtReference(Stage):
    """Features of the real images, and the moments that their file brings; once for all who are compared."""

    name, output = "look_at_reference", "reference_features"
    modules = NETWORKS
    config: LookAtReferenceConfig

    def __init__(self, config: LookAtReferenceConfig, originals: bool = False):
        """Look at what `config.real` names, or at the artifact `originals`."""
        name = config.look.name
        self.name, self.output = f"{self.name}_{name}", f"{self.output}_{name}"
        self.inputs = (KIND,) if originals else ()
        super().__init__(config)
        self.resources = occupied(config.look.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.metrics.sample_files import holds_images, npz_moments

        look, real = self.config.look, self.config.real
        if KIND in inputs:
            return _look(look, inputs[KIND], out)
        archive = real.place.suffix == ".npz"
        moments = npz_moments(real.place) if archive and look.name == INCEPTION else {}
        if moments:
            write_moments(moments, out)
            if not holds_images(real.place):
                return {"rows_in": 0, "rows_out": 0}
        return map_shards(real.shards("reference"), LookAtReferenceJob(look, real), out, look.workers)


def _look(look: LookConfig, images: Artifact, out: Workspace) -> Mapping[str, float]:
    return map_shards(file_shards(images), LookAtSamplesJob(look, images), out, look.workers)
