"""Stage: the images that a published model makes, by protocol or of a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import required
from pipelines.dag.shards import Shard, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.originals import KIND, Originals, refuse_known
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
    modules = ("reptok.pretrained", "reptok.metrics.sample_files", "reptok.training_keys")
    config: SampleImagesConfig

    def __init__(self, config: SampleImagesConfig, originals: bool = False):
        """Count the rows.

        Args:
            config: which model, how much of it, how.
            originals: whether it is asked for each image of the artifact `originals`, which says how many.

        Raises:
            ValueError: no model is named, or nothing says how many images.
        """
        if not config.model:
            raise ValueError("which model? model=FOLDER names a published one, model=owner/name one of a hub")
        self.prompts: list[str] = []
        self.inputs = (KIND,) if originals else ()
        self.resources = occupied(config.workers)
        if originals:
            super().__init__(replace(config, images=0))
            return
        if config.prompts:
            self.prompts = read_prompts(required(config.prompts, "prompts"))
        self.rows = rows_of(self.prompts, config.images, config.protocol, config.images_per_prompt)
        # So that two protocols of one number share their samples, and those of two numbers do not.
        super().__init__(replace(config, images=0 if self.prompts else self.rows))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        config = self.config
        place = model_place(config.model, inputs)
        originals = Originals.read(inputs[KIND]) if KIND in inputs else None
        if originals is not None:
            refuse_known(place, inputs[KIND], out)
        rows = self.rows if originals is None else len(originals)
        each = ranges("samples", rows, config.rows_per_shard)
        shards = []
        for number in range(config.sets):
            for shard in each:
                index = number * len(each) + shard.index
                part = {key: number * rows + row for key, row in shard.payload.items()}
                shards.append(Shard(index, f"samples-{index:05d}", shard.rows, part))
        job = SampleJob(place, tuple(self.prompts), rows, config, originals)
        stats = map_shards(shards, job, out, config.workers)
        write_index(out, shards, config.sets)
        return stats
