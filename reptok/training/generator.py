"""The generator's training: cached tokens and their captions or labels in, a generator out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load

from reptok import flops
from reptok.configs import GeneratorConfig, TextEncoderConfig
from reptok.data.loader import GeneratorData, split_sizes
from reptok.data.remote import Located, keeping
from reptok.data.transforms import to_bytes
from reptok.generator.conditioner import Conditioner
from reptok.generator.generator import TokenGenerator
from reptok.image_tokenizer import ImageTokenizer
from reptok.metrics.frechet import FeatureStatistics, frechet_distance
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_tokenizer, save_generator
from reptok.text_encoder import TextEncoder
from reptok.training.captions import caption_reader
from reptok.training.objectives import GeneratorObjective
from reptok.training.preview import Preview
from reptok.training.scores import Scores, online_name, spread, spread_runs
from reptok.training.start import (
    Start,
    record,
    same_classes,
    same_text,
    start_from,
    start_generator,
)
from reptok.training.task import Task, Training

COVARIANCE_SAMPLES, COVARIANCE_RUN, COVARIANCE_BATCH = 65_536, 1_024, 4_096
GRID_ROWS, GRID_SEEDS, GRID_STEPS, GRID_GUIDANCE = 6, 4, 20, 1.5


@dataclass(frozen=True, kw_only=True)
class GeneratorTraining(Training):
    """Train a generator of tokens (paper, section 3.3).

    Attributes:
        generator: Sizes, and what it is conditioned on.
        dataset: Folder of the samples' captions and labels.
        tokens: Folder of their tokens, aligned with `dataset`.
        tokenizer: Folder of the tokenizer that they are of, for the pictures on the way.
        text_encoder: Frozen language model, for generator.condition "text".
    """

    generator: GeneratorConfig
    dataset: Located
    tokens: Located
    tokenizer: os.PathLike[str]
    text_encoder: TextEncoderConfig | None = None

    def build(self, device: torch.device) -> Task:
        """Load the data and a fresh generator.

        Raises:
            ValueError: The tokens are of another dataset, or a generator of texts has no text encoder.
        """
        config, keep = self.train, self.train.cache_disk_bytes
        folders = (keeping(self.dataset, keep), keeping(self.tokens, keep))
        generator = TokenGenerator(self.generator)
        data = GeneratorData(*folders, "train")
        stats = load((folders[1] / "token_stats.safetensors").read_bytes())
        covariance = token_covariance(data) if self.generator.whiten else None
        generator.set_token_stats(stats["mean"], stats["std"], covariance)
        names = json.loads((folders[0] / "index.json").read_text()).get("class_names")

        def begin(folder: Path) -> Start:
            classes, text = same_classes(folder, names), same_text(folder, self.text_encoder)
            return start_generator(generator, folder, same_classes=classes, same_text=text)

        start = start_from(self.init, "generator", begin)
        generator.to(device)
        conditioner = self._conditioner(generator, device, sum(data.rows))
        validation = GeneratorData(*folders, "val") if split_sizes(folders[0]).get("val") else None
        objective = GeneratorObjective(
            generator, conditioner, config.time_sampling, time_loc=config.time_loc,
            time_scale=config.time_scale,
        )  # fmt: skip

        @cache
        def tokenizer() -> ImageTokenizer:  # loaded when the first pictures are due
            return load_tokenizer(Path(self.tokenizer)).to(device)

        def preview(step: int) -> Preview | None:
            if validation is None or step == config.steps:  # of the end the evaluation makes more
                return None
            return samples(tokenizer, validation)

        def save(trained: GeneratorObjective, folder: Path) -> None:
            save_generator(trained.generator, folder)
            record(start, folder)

        length = self.text_encoder.max_length if self.text_encoder else 0
        cost = flops.generator_training(self.generator, text_length=length)
        return Task(
            objective=objective,
            prepare=objective.prepared,
            data=data,
            validation=validation,
            save=save,
            weights=lambda trained: trained.generator.state_dict(),
            preview=preview,
            scores=partial(likeness, validation) if validation else None,
            notes=[f"generator from {self.init}: {start}"] if start else [],
            flops_per_image=lambda step: cost,
        )

    def _conditioner(self, generator: TokenGenerator, device: torch.device, samples: int) -> Conditioner:
        if not generator.reads.reads_text:
            return generator.reads(self.generator)
        if self.text_encoder is None:
            raise ValueError(
                f"generator.condition={self.generator.condition} needs a text encoder; set text_encoder in "
                "the configuration"
            )
        text_encoder = TextEncoder(self.text_encoder).to(device)
        if device.type == "cuda" and self.train.precision == "bfloat16":
            text_encoder.bfloat16()
        return generator.reads(self.generator, caption_reader(text_encoder, samples))


def token_covariance(data: GeneratorData, most: int = COVARIANCE_SAMPLES) -> torch.Tensor:
    """Covariance (D, D) of the raw tokens of at most so many samples, float64.

    They are runs of neighbours, spread over all: of a data set on a store every process reads the same few
    parts, which come once per machine.
    """
    chosen = spread_runs(sum(data.rows), most, COVARIANCE_RUN)
    parts = np.array_split(chosen, -(-len(chosen) // COVARIANCE_BATCH))
    tokens = (data.read(part, np.zeros(len(part), bool)).tokens.flatten(0, 1) for part in parts)
    statistics = FeatureStatistics.of(next(tokens))
    for some in tokens:
        statistics.update(some)
    return statistics.covariance * (
        1 - 1 / statistics.count
    )  # of the population, as `token_stats` has its std


def likeness(data: GeneratorData, wanted: int) -> Scores:
    """Frechet distance of tokens made for the conditions of samples spread over a split to their own tokens.

    Several tokens of a sample count as their mean. It is of the tokens themselves: no image is decoded.
    """
    chosen = spread(sum(data.rows), wanted)

    def look(objective: GeneratorObjective, part: np.ndarray) -> torch.Tensor:
        batch = data.read(part, np.zeros(len(part), bool))
        generator = objective.generator
        condition = objective.conditioner.of(batch.captions, batch.labels).to(
            next(generator.parameters()).device
        )
        made = generator.sample(
            condition, num_steps=GRID_STEPS, cfg_scale=GRID_GUIDANCE, seeds=[int(sample) for sample in part]
        )
        return torch.cat([made.mean(1), batch.tokens.to(made).mean(1)], 1)

    def total(values: torch.Tensor) -> Mapping[str, float]:
        if len(values) < 2:
            return {}
        made, real = (FeatureStatistics.of(half) for half in values.double().chunk(2, 1))
        return {online_name("token_frechet", len(chosen)): frechet_distance(made, real)}

    return Scores(samples=chosen, look=look, total=total)


def samples(tokenizer: Callable[[], ImageTokenizer], data: GeneratorData) -> Preview:
    """Generate images for conditions spread over a split: a line per condition, a picture per seed."""
    total = sum(data.rows)
    chosen = spread(total, GRID_ROWS)
    told = data.read(chosen, np.zeros(len(chosen), bool))

    def draw(objective: GeneratorObjective, lines: np.ndarray) -> torch.Tensor:
        pipe = RepTokPipeline(tokenizer(), objective.generator)
        batch = data.read(chosen[lines], np.zeros(len(lines), bool))
        condition = objective.conditioner.of(batch.captions, batch.labels).to(pipe.tokenizer.device)
        columns = [
            pipe.sample(
                condition, [seed] * len(lines), cfg_scale=GRID_GUIDANCE, num_steps=GRID_STEPS,
                decoder_steps=GRID_STEPS,
            )
            for seed in range(GRID_SEEDS)
        ]  # fmt: skip
        return torch.stack([to_bytes(column) for column in columns], 1)

    labels = [caption or f"class {label}" for caption, label in zip(told.captions, told.labels, strict=True)]
    titles = [f"seed {seed}" for seed in range(GRID_SEEDS)]
    return Preview(name="samples", columns=titles, labels=labels, draw=draw)
