"""Stage encode_tokens: the trained tokenizer's token of every image and its mirror image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load, save

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shard_stage import ShardStage
from pipelines.dag.shards import Shard, ShardJob, ShardWork, WorkerResources
from pipelines.dag.workspace import SCRATCH, Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.stages.dataset import (
    dataset_rows,
    dataset_shards,
    image_batches,
    image_size_of,
    remove_empty_splits,
)
from pipelines.stages.encode_latents import LATENT_SPEC, refuse_to_lack_the_first
from pipelines.stages.tables import occupied
from reptok.data.blocks import BlockWriter
from reptok.data.statistics import RunningMoments

if TYPE_CHECKING:
    from pipelines.encoding.tokens import EncodeTokens as EncodeTokensOp

TOKEN_STATS = "token_stats.safetensors"


@dataclass(frozen=True, kw_only=True)
class EncodeTokensConfig:
    """How the tokenizer computes: device, precision, batch size; and its workers."""

    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True)
class TokensJob(ShardJob):
    """Tokenize one shard of the dataset and keep the sums of its tokens for the statistics."""

    dataset: Artifact
    image_size: int
    tokenizer: Artifact
    config: EncodeTokensConfig
    op: EncodeTokensOp = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the tokenizer where this worker runs.

        Raises:
            ValueError: The tokenizer makes images of another size than the dataset's.
        """
        from pipelines.encoding.tokens import EncodeTokens as EncodeTokensOp

        folder = self.tokenizer.local_path()
        object.__setattr__(self, "op", EncodeTokensOp(folder, self.config.compute))
        self.op.setup()
        if self.op.tokenizer.image_size != self.image_size:
            raise ValueError(
                f"the dataset's images are {self.image_size} px, but the tokenizer was trained on "
                f"{self.op.tokenizer.image_size} px; rerun train_tokenizer on this dataset"
            )

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{split}-{i}.tar` of blocks with `keys` and `token`."""
        name = shard.payload["shard"]
        moments = RunningMoments.empty(self.op.tokenizer.token_dim)
        with out.create(f"{name}.tar") as file:
            target: Any = file
            blocks = BlockWriter(target)
            batch_size = self.config.compute.batch_size
            for keys, images in image_batches(self.dataset, name, self.image_size, batch_size):
                token = self.op({"image": images})["token"]
                blocks.add(keys, {"token": token})
                moments.update(token)
            blocks.close()
        sums = {"count": np.array(moments.count), "total": moments.total, "squares": moments.squares}
        out.write_bytes(_sums_file(name), save(sums))
        if shard.index == 0:
            spec = self.op.tokenizer.autoencoder.spec
            out.write_json(LATENT_SPEC, asdict(replace(spec, image_size=self.image_size)))
        return {"rows_in": shard.rows, "rows_out": blocks.rows}

    def absent(self, shard: Shard, out: Workspace) -> None:
        """Nothing: a training passes over the samples of `quarantined.json`."""
        refuse_to_lack_the_first(shard)

    def rows_of(self, shard: Shard) -> int:
        """Samples of the shard."""
        return dataset_rows(self.dataset, shard)

    def files_of(self, shard: Shard) -> tuple[str, ...]:
        """The blocks."""
        return (f"{shard.payload['shard']}.tar",)


class EncodeTokens(ShardStage):
    """Run the trained tokenizer over every image; mean and std of the tokens over the train split."""

    name, inputs, output, version = "encode_tokens", ("dataset", "tokenizer"), "tokens", 1
    by_shard = ("dataset",)

    def __init__(self, config: EncodeTokensConfig):
        super().__init__(config)
        self.resources = occupied(config.workers)

    def work(self, inputs: Mapping[str, Artifact], out: Workspace) -> ShardWork:
        """One shard for each tar of the dataset."""
        dataset = inputs["dataset"]
        job = TokensJob(dataset, image_size_of(dataset), inputs["tokenizer"], self.config)
        return ShardWork(shards=dataset_shards(dataset), job=job, workers=self.config.workers)

    def finish(
        self, inputs: Mapping[str, Artifact], out: Workspace, work: ShardWork, stats: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Keep the splits that the dataset has; write mean and standard deviation of the tokens."""
        remove_empty_splits(inputs["dataset"], work.shards, out)
        moments = merged_moments(work.shards, out)
        mean, std = moments.mean.astype(np.float32), moments.std.astype(np.float32)
        out.write_bytes(TOKEN_STATS, save({"mean": mean, "std": std}))
        return {**stats, "token_mean_abs": float(np.abs(mean).mean()), "token_std": float(std.mean())}


def merged_moments(shards: Sequence[Shard], out: Workspace) -> RunningMoments:
    """Merge the train shards' sums in shard order, whichever worker made them when.

    Raises:
        ValueError: There is no train sample.
    """
    moments: RunningMoments | None = None
    for shard in shards:
        if shard.payload["split"] == "train" and out.exists(_sums_file(shard.payload["shard"])):
            sums = load(out.read_bytes(_sums_file(shard.payload["shard"])))
            part = RunningMoments(int(sums["count"]), sums["total"], sums["squares"])
            if moments is None:
                moments = RunningMoments.empty(len(part.total))
            moments.merge(part)
    if moments is None or moments.count == 0:
        raise ValueError(
            "the dataset has no train samples, so the tokens have no statistics; lower val_fraction"
        )
    return moments


def _sums_file(shard: str) -> str:
    return f"{SCRATCH}/sums/{shard}.safetensors"
