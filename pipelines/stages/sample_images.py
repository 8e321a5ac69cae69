"""Stage: the images that a published model makes, by protocol or of a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import fetch_model, refer, required
from pipelines.dag.shards import Shard, WorkerResources, map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.sampling import Asked, SampleJob, read_prompts, rows_of
from pipelines.stages.evaluate_generator import SolverName
from pipelines.stages.tables import occupied
from reptok.bounds import Count, Number, Share, Whole


@dataclass(frozen=True, kw_only=True)
class SampleImagesConfig:
    """Which model, how much of it, and how it is asked.

    Attributes:
        model: a published model: folder or hub id.
        protocol: says how many images, where nothing else does.
        images: how many; 0 leaves it to the protocol or the prompts.
        prompts: a file of texts, one a line.
        images_per_prompt: how many of each, one after the other.
        guidance: scale of classifier-free guidance; 1 is none.
        guidance_interval: flow times between which it acts.
        generator_steps: solver steps of the generator.
        decoder_steps: solver steps of the decoder.
        solver: of both: euler, heun, sde (stochastic), or adaptive: dopri5, dopri8, bosh3, adaptive_heun.
        seed: of the first image; each further one has the next.
        rows_per_shard: images in a file, the unit of resume.
        compute: device, precision and batch size.
        workers: who makes them.
    """

    model: str = field(default="", metadata={"reference": "network", "named": True})
    protocol: str = insignificant("")
    images: Whole = 0
    prompts: str = field(default="", metadata={"reference": "file"})
    images_per_prompt: Count = 1
    guidance: Number = 1.5
    guidance_interval: tuple[Share, Share] = (0.3, 0.9)
    generator_steps: Count = 50
    decoder_steps: Count = 50
    solver: SolverName = "euler"
    seed: Whole = 0
    rows_per_shard: Count = 500
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


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
                {"start": start, "stop": min(start + config.rows_per_shard, self.rows),
                 "per_prompt": config.images_per_prompt},
            )
            for number, start in enumerate(range(0, self.rows, config.rows_per_shard))
        ]  # fmt: skip
        asked = Asked(
            guidance=config.guidance, guidance_interval=config.guidance_interval,
            generator_steps=config.generator_steps, decoder_steps=config.decoder_steps,
            solver=config.solver, seed=config.seed,
        )  # fmt: skip
        job = SampleJob(place, tuple(self.prompts), asked, config.compute)  # type: ignore[arg-type]
        return map_shards(shards, job, out, config.workers)
