"""One process of the generator's training: cached tokens and their captions or labels in, a generator out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from safetensors.torch import load_file

from pipelines.dag.stage import Artifact, Workspace
from pipelines.workers.fit import join, run
from pipelines.workers.relay import RelayLog
from reptok.configs import GeneratorConfig, TextEncoderConfig
from reptok.data.loader import GeneratorBatch, GeneratorData, split_sizes
from reptok.generator.conditioning import Condition
from reptok.generator.generator import TokenGenerator
from reptok.pretrained import save_generator
from reptok.text_encoder import TextEncoder
from reptok.training.conditions import CaptionConditions, label_condition, no_condition
from reptok.training.config import TrainConfig
from reptok.training.step import GeneratorObjective


def train_generator(settings: dict[str, Any]) -> None:
    """Train in this process; rank 0 leaves the averaged generator in the workspace's scratch.

    Args:
        settings: "generator" (GeneratorConfig), "text_encoder" (TextEncoderConfig or None), "train"
            (TrainConfig), the artifacts "dataset" and "tokens", the workspace "out", and "log".
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
    objective = GeneratorObjective(generator, conditions, config.time_sampling)
    run(
        member, objective, config, data, validation, out, log,
        save=lambda folder: save_generator(generator, folder),
    )  # fmt: skip
