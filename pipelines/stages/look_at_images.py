"""Stages: what one network says of samples, and of the real images that they are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.looking import (
    LookAtReferenceJob,
    LookAtSamplesJob,
    LookConfig,
    write_moments,
)
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.sampling import sample_files
from pipelines.stages.tables import occupied
from reptok.metrics.protocols import INCEPTION

NETWORKS = ("reptok.metrics.features", "reptok.metrics.inception", "reptok.metrics.score")


class LookAtSamples(Stage):
    """Features of samples, a file for each of theirs."""

    name, inputs, output = "look_at_samples", ("samples",), "sample_features"
    modules = NETWORKS
    config: LookConfig

    def __init__(self, config: LookConfig):
        """Raise ValueError unless exactly one network is named."""
        config.check()
        super().__init__(config)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        samples = inputs["samples"]
        shards = [
            Shard(number, found.file.removesuffix(".npz"), found.rows, {"file": found.file})
            for number, found in enumerate(sample_files(samples))
        ]
        return map_shards(shards, LookAtSamplesJob(self.config, samples), out, self.config.workers)


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

    def __init__(self, config: LookAtReferenceConfig):
        """Raise ValueError unless exactly one network is named."""
        config.look.check()
        super().__init__(config)
        self.resources = occupied(config.look.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.metrics.sample_files import holds_images, npz_moments

        look, real = self.config.look, self.config.real
        archive = real.place.suffix == ".npz"
        moments = npz_moments(real.place) if archive and look.name == INCEPTION else {}
        if moments:
            write_moments(moments, out)
            if not holds_images(real.place):
                return {"rows_in": 0, "rows_out": 0}
        return map_shards(real.shards("reference"), LookAtReferenceJob(look, real), out, look.workers)
