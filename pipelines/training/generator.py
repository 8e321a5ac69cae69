"""One process of the generator's training: cached tokens and their captions or labels in, a generator out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pipelines.dag.stage import Artifact, Workspace
from pipelines.training.process import join, run
from pipelines.training.relay import GridRow, RelayLog
from pipelines.training.start import record, same_classes, same_text, start_from
from reptok import flops
from reptok.configs import GeneratorConfig, TextEncoderConfig
from reptok.data.batch import GeneratorBatch
from reptok.data.loader import GeneratorData, split_sizes
from reptok.data.transforms import to_uint8
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator
from reptok.latent_tokenizer import LatentTokenizer
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_tokenizer, save_generator
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok
from reptok.training.conditions import CaptionConditions, label_condition, no_condition
from reptok.training.config import TrainConfig
from reptok.training.objectives import GeneratorObjective
from reptok.training.start import Start, start_generator

GRID_ROWS, GRID_SEEDS, GRID_STEPS, GRID_GUIDANCE = 6, 4, 20, 1.5


def train_generator(settings: dict[str, Any]) -> None:
    """Train in this process; rank 0 leaves the averaged generator in the workspace's scratch.

    Args:
        settings: "generator" (GeneratorConfig), "text_encoder" (TextEncoderConfig or None), "train"
            (TrainConfig), "init" (a model to start from, or ""), the artifacts "dataset",
            "tokens" and "tokenizer", the workspace "out", and "log".
    """
    config: TrainConfig = settings["train"]
    generator_config: GeneratorConfig = settings["generator"]
    text_config: TextEncoderConfig | None = settings["text_encoder"]
    dataset: Artifact = settings["dataset"]
    tokens: Artifact = settings["tokens"]
    out: Workspace = settings["out"]
    log: RelayLog = settings["log"]
    member = join(config)
    generator = TokenGenerator(generator_config)
    stats = load_file(tokens.local_path("token_stats.safetensors"))
    generator.set_token_stats(stats["mean"], stats["std"])
    names = dataset.read_json("index.json").get("class_names")

    def begin(folder: Path) -> Start:
        classes, text = same_classes(folder, names), same_text(folder, text_config)
        return start_generator(generator, folder, same_classes=classes, same_text=text)

    start = start_from(settings["init"], "generator", begin, member, log)
    generator.to(member.device)
    if generator_config.condition == "text":
        if text_config is None:
            raise ValueError(
                "generator.condition=text needs a text encoder; set text_encoder in the configuration"
            )
        text_encoder = TextEncoder(text_config).to(member.device)
        conditions: Callable[[GeneratorBatch], Condition] = CaptionConditions(text_encoder)
    else:
        conditions = label_condition if generator_config.condition == "class" else no_condition
    folders = dataset.local_path(), tokens.local_path()
    data = GeneratorData(*folders, "train")
    validation = GeneratorData(*folders, "val") if split_sizes(folders[0]).get("val") else None
    objective = GeneratorObjective(
        generator, conditions, config.time_sampling, time_loc=config.time_loc, time_scale=config.time_scale
    )

    def save(trained: GeneratorObjective, folder: Path) -> None:
        save_generator(trained.generator, folder)
        record(start, folder)

    decoders: list[RepTok | LatentTokenizer] = []  # loaded when the first pictures are due

    def show(trained: GeneratorObjective, step: int) -> None:
        if validation is not None and step < config.steps:  # of the end the evaluation makes more
            decoders[:] = decoders or [load_tokenizer(settings["tokenizer"].local_path()).to(member.device)]
            columns, rows = samples(trained, decoders[0], validation)
            log.grid("samples", columns, rows, step)

    length = text_config.max_length if text_config else 0
    cost = flops.generator_training(generator_config, text_length=length)
    run(member, objective, config, data, validation, out, log, save, show, lambda step: cost)


@torch.no_grad()
def samples(
    objective: GeneratorObjective, tokenizer: RepTok | LatentTokenizer, data: GeneratorData
) -> tuple[list[str], list[GridRow]]:
    """Generate images for conditions spread over a split.

    Returns:
        Column titles, and for each condition its caption and uint8 (H, W, 3) pictures, one per seed.
    """
    total = sum(data.rows)
    chosen = np.unique(np.linspace(0, total - 1, min(GRID_ROWS, total)).round().astype(np.int64))
    batch = data.read(chosen, np.zeros(len(chosen), bool))
    condition = objective.conditions(batch).to(tokenizer.device)
    pipe, columns = RepTokPipeline(tokenizer, objective.generator), []
    for seed in range(GRID_SEEDS):
        seeds = [seed] * len(chosen)
        images = pipe.sample(
            condition, seeds, cfg_scale=GRID_GUIDANCE, num_steps=GRID_STEPS, decoder_steps=GRID_STEPS
        )
        columns.append(to_uint8(images))
    names = [caption or f"class {label}" for caption, label in zip(batch.captions, batch.labels, strict=True)]
    rows = zip(names, zip(*columns, strict=True), strict=True)
    titles = [f"seed {seed}" for seed in range(GRID_SEEDS)]
    return titles, [(name, list(pictures)) for name, pictures in rows]
