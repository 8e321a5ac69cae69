"""Stage: the images that a published model makes, by protocol or of a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import fetch_model, refer, required
from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.sampling import SampleImagesConfig, SampleJob, read_prompts, rows_of
from pipelines.stages.tables import occupied


class SampleImages(Stage):
    """Ask the model for every row, over shards."""

    name, output = "sample_images", "samples"
    modules = ("reptok.pretrained", "reptok.metrics.sample_files")
    config: SampleImagesConfig

    def __init__(self, config: SampleImagesConfig):
        """Count the rows.

        Raises:
            ValueError: no model is named, or nothing says how many images.
        """
        if not config.model:
            raise ValueError("which model? model=FOLDER names a published one, model=owner/name one of a hub")
        self.prompts = read_prompts(required(config.prompts, "prompts")) if config.prompts else []
        self.rows = rows_of(self.prompts, config.images, config.protocol, config.images_per_prompt)
        # So that two protocols of one number share their samples, and those of two numbers do not.
        super().__init__(replace(config, images=0 if self.prompts else self.rows))
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config = self.config
        fetch_model(config.model, "model")
        found = refer(config.model, "model")
        place = inputs[found.artifact].local_path() if found.artifact else found.folder or found.hub
        shards = [
            Shard(
                number, f"samples-{number:05d}", min(config.rows_per_shard, self.rows - start),
                {"start": start, "stop": min(start + config.rows_per_shard, self.rows)},
            )
            for number, start in enumerate(range(0, self.rows, config.rows_per_shard))
        ]  # fmt: skip
        job = SampleJob(place, tuple(self.prompts), config)  # type: ignore[arg-type]
        return map_shards(shards, job, out, config.workers)
