"""Stage encode_latents: VAE moments and frozen tokens of every image and its mirror image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.dag.artifact import Artifact
from pipelines.dag.earlier import Made
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import artifacts_of, fetch, located
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.dataset import (
    dataset_rows,
    dataset_shards,
    image_batches,
    image_size_of,
    remove_empty_splits,
)
from pipelines.stages.encoded_before import EncodedBefore
from pipelines.stages.tables import occupied
from reptok.configs import AutoencoderConfig, EncoderConfig
from reptok.data.blocks import BlockWriter

if TYPE_CHECKING:
    from pipelines.encoding.latents import EncodeLatents as EncodeLatentsOp

LATENT_SPEC = "latent_spec.json"


@dataclass(frozen=True, kw_only=True)
class EncodeLatentsConfig:
    """The frozen networks and how they compute.

    Attributes:
        vae: The VAE.
        encoder: The frozen encoder.
        compute: Device, precision and batch size.
        workers: Actors and what each occupies.
    """

    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        # Moments are stored, not samples of them, and the encoder as it was before any adaptation.
        object.__setattr__(self, "vae", replace(self.vae, sample=True))
        object.__setattr__(self, "encoder", replace(self.encoder, trainable="nothing"))


@dataclass(frozen=True)
class LatentsJob(ShardJob):
    """Encode one shard of the dataset; the shard of number 0 also writes what the latents mean."""

    dataset: Artifact
    image_size: int
    models: Mapping[str, Artifact]
    config: EncodeLatentsConfig
    op: EncodeLatentsOp = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the networks where this worker runs."""
        from pipelines.encoding.latents import EncodeLatents as EncodeLatentsOp

        vae = located(self.config.vae, self.models)
        encoder = located(self.config.encoder, self.models)
        object.__setattr__(self, "op", EncodeLatentsOp(vae, encoder, self.config.compute))
        self.op.setup()

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` of blocks with `keys`, `moments` and `frozen_token`."""
        name = shard.payload["shard"]
        with out.create(f"{name}.tar") as file:
            target: Any = file
            blocks = BlockWriter(target)
            batch_size = self.config.compute.batch_size
            encoded = EncodedBefore.of(self.dataset, name, out)
            for keys, images in image_batches(self.dataset, name, self.image_size, batch_size):
                blocks.add(keys, encoded.completed(keys, images, self._encoded))
            blocks.close()
        if shard.index == 0:
            spec = replace(self.op.autoencoder.spec, image_size=self.image_size)
            out.write_json(LATENT_SPEC, asdict(spec))
        reused = {"rows_reused": encoded.rows} if encoded.rows else {}
        return {"rows_in": shard.rows, "rows_out": blocks.rows, **reused}

    def _encoded(self, images: np.ndarray) -> dict[str, np.ndarray]:
        batch = self.op({"image": images})
        return {column: batch[column] for column in self.op.writes}

    def made_of(self, shard: Shard) -> Sequence[Made]:
        """The tar; the first one has what the latents mean beside it."""
        tar = (self.dataset, f"{shard.payload['shard']}.tar")
        return (tar, "first") if shard.index == 0 else (tar,)

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Nothing: a training passes over the samples of `quarantined.json`."""
        refuse_to_lack_the_first(shard)

    def rows_of(self, shard: Shard) -> int:
        """Samples of the shard."""
        return dataset_rows(self.dataset, shard)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The blocks."""
        return (f"{shard.payload['shard']}.tar",)


def refuse_to_lack_the_first(shard: Shard) -> None:
    """Raise ValueError for shard number 0, which also writes what the arrays mean."""
    if shard.index == 0:
        raise ValueError(
            f"{shard.name} cannot be given up, whatever workers.max_failed says: {LATENT_SPEC} comes with "
            "it; mend its cause, and the same command goes on"
        )


class EncodeLatents(ShardStage):
    """Cache what tokenizer training would otherwise compute again in every epoch."""

    name, output, version = "encode_latents", "latents", 2
    inputs: tuple[str, ...] = ("dataset",)
    by_shard = ("dataset",)
    modules = ("reptok.autoencoder", "reptok.encoder.ssl")

    def __init__(self, config: EncodeLatentsConfig):
        super().__init__(config)
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each tar of the dataset."""
        config = self.config
        models = {kind: inputs[kind] for kind in artifacts_of(config, self.name)}
        fetch(config.vae, "vae.path")
        fetch(config.encoder, "encoder.path")
        if config.encoder.path is None:  # known by name alone: its own library fetches it
            from reptok.encoder.ssl import build_encoder

            build_encoder(config.encoder)
        dataset = inputs["dataset"]
        job = LatentsJob(dataset, image_size_of(dataset), models, config)
        return ShardWork(shards=dataset_shards(dataset), job=job, workers=config.workers)

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Keep the splits that the dataset has."""
        remove_empty_splits(inputs["dataset"], work.shards, out)
        return stats
