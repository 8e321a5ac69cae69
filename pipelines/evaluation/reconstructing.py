"""Real images through a published tokenizer and back, shard by shard, each with how near it came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import required
from pipelines.dag.shards import Shard, ShardJob, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.evaluation.real_images import RealImagesConfig
from pipelines.evaluation.sampling import SAMPLES, SolverName
from reptok.bounds import Count, Quantisation, Whole

if TYPE_CHECKING:
    from torch import Tensor

    from reptok.image_tokenizer import ImageTokenizer
    from reptok.metrics.sample_files import ImageSet


@dataclass(frozen=True, kw_only=True)
class ReconstructImagesConfig:
    """Which model, which images, and how.

    Attributes:
        model: a published model or tokenizer: folder or hub id.
        step: of the tokenizer's training whose weights are asked; 0 for the end.
        real: the originals, where no artifact holds them.
        lpips_weights: file of torchvision's AlexNet, for LPIPS.
        decoder_steps: solver steps of the decoder.
        solver: of the decoder.
        quantisation: how pixels become bytes; the protocol's.
        seed: of the first image's noise; each further one has the next.
        compute: device, precision and batch size.
        workers: who makes them.
    """

    model: str = field(default="", metadata={"reference": "network", "named": True})
    step: Whole = field(default=0, metadata={"optional": True})
    real: RealImagesConfig = field(default_factory=RealImagesConfig)
    lpips_weights: str = field(default="", metadata={"reference": "file", "optional": True})
    decoder_steps: Count = 50
    solver: SolverName = "euler"
    quantisation: Quantisation = "round"
    seed: Whole = 0
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


@dataclass(frozen=True)
class ReconstructJob(ShardJob):
    """Reconstruct one range of rows.

    Writes `samples-{i}.npz` as a generator's samples, and `samples-{i}.jsonl` with `row`, `seed`, the figures
    of `reptok.metrics.reconstruction.PER_IMAGE` and LPIPS of each, measured before pixels become bytes.
    """

    folder: Path | str
    config: ReconstructImagesConfig
    originals: Artifact | None = None
    tokenizer: ImageTokenizer = field(init=False, repr=False, compare=False)
    images: ImageSet = field(init=False, repr=False, compare=False)
    near: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the model, and open the images once."""
        from reptok.metrics.perceptual import Lpips
        from reptok.metrics.reconstruction import PER_IMAGE
        from reptok.pretrained import load_pretrained

        config, device = self.config, self.config.compute.device
        config.compute.prepare()
        pipe = load_pretrained(self.folder, tokenizer_step=config.step).eval().to(device)
        object.__setattr__(self, "tokenizer", pipe.tokenizer)
        if self.originals is None:
            object.__setattr__(self, "images", config.real.open())
        near = dict(PER_IMAGE)
        if config.lpips_weights:
            near["lpips"] = Lpips(required(config.lpips_weights, "evaluate.scores.lpips_weights"), device)
        object.__setattr__(self, "near", near)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Reconstruct the rows from the payload's `start`."""
        import torch

        from reptok.attention import preferred
        from reptok.data.transforms import quantised
        from reptok.metrics.sample_files import NpzWriter

        config, name, row = self.config, SAMPLES.format(shard.index), shard.payload["start"]
        compute, lines = config.compute, []
        with torch.inference_mode(), out.create(name) as file, preferred(compute.device):
            target: Any = file
            archive = NpzWriter(target, shard.rows, self.tokenizer.image_size)
            for pixels in self._batches(shard):
                originals = (pixels.to(self.tokenizer.device).float() / 127.5) - 1
                seeds = [config.seed + row + number for number in range(len(pixels))]
                with compute.autocast():
                    made = self.tokenizer.reconstruct(
                        originals, num_steps=config.decoder_steps, solver=config.solver, seed=seeds
                    )
                archive.add(quantised(made, config.quantisation))
                figures = {metric: of(made.float(), originals).tolist() for metric, of in self.near.items()}
                for number, seed in enumerate(seeds):
                    near = {metric: values[number] for metric, values in figures.items()}
                    lines.append(json.dumps({"row": row + number, "seed": seed, **near}))
                row += len(pixels)
            archive.close()
        out.write_bytes(name.replace(".npz", ".jsonl"), ("\n".join(lines) + "\n").encode())
        return {"rows_in": shard.rows, "rows_out": shard.rows}

    def _batches(self, shard: Shard) -> Iterator[Tensor]:
        from reptok.metrics.sample_files import NpzImages

        size = self.config.compute.batch_size
        if self.originals is None:
            return self.images.batches(size, shard.payload["start"], shard.payload["stop"])
        return NpzImages(Path(self.originals.local_path(shard.payload["file"]))).batches(size)
