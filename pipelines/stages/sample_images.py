"""Stage: the images that a published model makes, by protocol or of a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import required
from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.real_images import ranges
from pipelines.evaluation.sampling import (
    SampleImagesConfig,
    SampleJob,
    model_place,
    read_prompts,
    rows_of,
    write_index,
)
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
        place = model_place(config.model, inputs)
        each = ranges("samples", self.rows, config.rows_per_shard)
        shards = []
        for number in range(config.sets):
            for shard in each:
                index = number * len(each) + shard.index
                rows = {key: number * self.rows + row for key, row in shard.payload.items()}
                shards.append(Shard(index, f"samples-{index:05d}", shard.rows, rows))
        job = SampleJob(place, tuple(self.prompts), self.rows, config)
        stats = map_shards(shards, job, out, config.workers)
        write_index(out, shards, config.sets)
        return stats
