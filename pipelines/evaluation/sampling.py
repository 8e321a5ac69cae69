"""What a published model is asked for, row by row, and one shard of the answers.

A row's noise follows from the seed and its number alone: batches, workers and kills change no pixel.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.dag.artifact import Artifact
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.reference import fetch_model, refer
from pipelines.dag.shards import Shard, ShardJob, WorkerResources
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from reptok.bounds import Count, Number, Quantisation, Share, Whole
from reptok.metrics.protocols import PROTOCOLS

if TYPE_CHECKING:
    from pipelines.evaluation.originals import Originals
    from reptok.pipeline import RepTokPipeline

SolverName = Literal["euler", "heun", "sde", "dopri5", "dopri8", "bosh3", "adaptive_heun"]
SAMPLES, INDEX = "samples-{:05d}.npz", "index.json"


@dataclass(frozen=True, kw_only=True)
class SampleImagesConfig:
    """Which model, how much of it, and how it is asked.

    Attributes:
        model: a published model: folder or hub id.
        step: of the generator's training whose weights are asked; 0 for the end.
        protocol: says how many images, where nothing else does.
        images: how many; 0 leaves it to the protocol or the prompts.
        sets: how many sets of so many images, each of its own noise: their scores tell how far one set's
            may be trusted.
        prompts: a file of texts, one a line.
        images_per_prompt: how many of each, one after the other.
        guidance: scale of classifier-free guidance; 1 is none.
        guidance_interval: flow times between which it acts.
        generator_steps: solver steps of the generator.
        decoder_steps: solver steps of the decoder.
        solver: of both: euler, heun, sde (stochastic), or adaptive: dopri5, dopri8, bosh3, adaptive_heun.
        quantisation: how pixels become bytes; the protocol's.
        seed: of the first image; each further one has the next.
        rows_per_shard: images in a file, the unit of resume.
        compute: device, precision and batch size.
        workers: who makes them.
    """

    model: str = field(default="", metadata={"reference": "network", "named": True})
    step: Whole = field(default=0, metadata={"optional": True})
    protocol: str = insignificant("")
    images: Whole = 0
    sets: Count = 1
    prompts: str = field(default="", metadata={"reference": "file"})
    images_per_prompt: Count = 1
    guidance: Number = 1.5
    guidance_interval: tuple[Share, Share] = (0.3, 0.9)
    generator_steps: Count = 50
    decoder_steps: Count = 50
    solver: SolverName = "euler"
    quantisation: Quantisation = "round"
    seed: Whole = 0
    rows_per_shard: Count = 500
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)


def read_prompts(path: Path) -> list[str]:
    """The lines of a prompt file that are not empty, in order.

    Raises:
        ValueError: there are none, or the file is no text.
    """
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    if not (prompts := [line for line in lines if line]):
        raise ValueError(f"{path} holds no prompts: one a line")
    return prompts


def model_place(model: str, inputs: Mapping[str, Artifact]) -> Path | str:
    """Where the model lies for every worker: a folder, or its id on a hub, which is asked once."""
    fetch_model(model, "model")
    found = refer(model, "model")
    return inputs[found.artifact].local_path() if found.artifact else found.folder or found.hub


def rows_of(prompts: Sequence[str], images: int, protocol: str, per_prompt: int) -> int:
    """How many images are made: those asked for, the protocol's, or so many of each prompt.

    Raises:
        ValueError: nothing says how many.
    """
    if prompts:
        if images:
            raise ValueError(
                "prompts say how many images there are, images_per_prompt of each: leave images out"
            )
        return len(prompts) * per_prompt
    if not images and protocol not in PROTOCOLS:
        raise ValueError("say how many images are to be made: images=, protocol= or prompts=")
    return images or PROTOCOLS[protocol].images


@dataclass(frozen=True)
class SampleJob(ShardJob):
    """Make the images of one range of rows.

    Writes `samples-{i}.npz` (`arr_0` uint8 (N, H, W, 3), as ADM's evaluator reads it) and `samples-{i}.jsonl`
    with `row`, `asked` and `seed` of each. `rows` are those of one set, which the next one asks for again.
    Of `originals` each is asked for by what the model is told: its caption, its label or nothing.
    """

    folder: Path | str
    prompts: tuple[str, ...]
    rows: int
    config: SampleImagesConfig
    originals: Originals | None = None
    pipe: RepTokPipeline = field(init=False, repr=False, compare=False)

    def setup(self) -> None:
        """Load the model.

        Raises:
            ValueError: it has no generator, or cannot be asked in this way.
        """
        from reptok.pretrained import load_pretrained

        compute = self.config.compute
        compute.prepare()
        pipe = load_pretrained(self.folder, generator_step=self.config.step).eval().to(compute.device)
        conditioner = pipe.conditioner
        if self.originals is not None:
            self.originals.check(pipe)
        elif conditioner.reads_text and not self.prompts:
            raise ValueError(f"{self.folder} makes images of texts: give them with prompts=FILE, one a line")
        if self.prompts and not conditioner.reads_text:
            raise ValueError(f"{self.folder} reads no text: leave prompts= out")
        object.__setattr__(self, "pipe", pipe)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Make the rows `start` to `stop` of the shard."""
        import torch

        from reptok.attention import preferred
        from reptok.data.transforms import quantised
        from reptok.metrics.sample_files import NpzWriter

        start, stop = shard.payload["start"], shard.payload["stop"]
        config, name = self.config, SAMPLES.format(shard.index)
        lines = []
        with torch.inference_mode(), out.create(name) as file, preferred(config.compute.device):
            target: Any = file
            archive = NpzWriter(target, stop - start, self.pipe.tokenizer.image_size)
            for first in range(start, stop, config.compute.batch_size):
                rows = range(first, min(first + config.compute.batch_size, stop))
                wanted = [self._wanted(row) for row in rows]
                condition = self.pipe.conditioner.asked([w for w in wanted if w is not None])
                with config.compute.autocast():
                    images = self.pipe.sample(
                        condition.to(self.pipe.device), [config.seed + row for row in rows],
                        cfg_scale=config.guidance, guidance_interval=config.guidance_interval,
                        num_steps=config.generator_steps, decoder_steps=config.decoder_steps,
                        solver=config.solver,
                    )  # fmt: skip
                archive.add(quantised(images, config.quantisation))
                lines += [
                    json.dumps({"row": row, "asked": what, "seed": config.seed + row}, ensure_ascii=False)
                    for row, what in zip(rows, wanted, strict=True)
                ]
            archive.close()
        out.write_bytes(name.replace(".npz", ".jsonl"), ("\n".join(lines) + "\n").encode())
        return {"rows_in": shard.rows, "rows_out": shard.rows}

    def _wanted(self, row: int) -> str | int | None:
        row %= self.rows
        if self.originals is not None:
            return self.originals.asked(row, self.pipe.conditioner)
        if self.prompts:
            return self.prompts[row // self.config.images_per_prompt]
        if self.pipe.conditioner.reads_classes:
            return row % self.pipe.conditioner.config.num_classes  # every class equally often
        return None


@dataclass(frozen=True)
class SampleFile:
    """A file of images.

    Attributes:
        file: its name.
        rows: how many.
        set: number of the set that they belong to.
    """

    file: str
    rows: int
    set: int = 0


def write_index(out: Workspace, shards: Sequence[Shard], sets: int = 1) -> None:
    """Write what the artifact holds: a file for each shard that was not given up, so many sets one by one."""
    each = len(shards) // sets
    found = [
        SampleFile(SAMPLES.format(shard.index), shard.rows, shard.index // each)
        for shard in shards
        if out.exists(SAMPLES.format(shard.index))
    ]
    out.write_json(INDEX, [asdict(file) for file in found])


def sample_files(samples: Artifact) -> list[SampleFile]:
    """The files of an artifact `samples`, in order."""
    return [SampleFile(**found) for found in samples.read_json(INDEX)]
