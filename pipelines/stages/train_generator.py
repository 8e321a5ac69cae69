"""Stage train_generator: the velocity of tokens under a class or a text; no image is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.dag.reference import fetch, located
from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.stages.training import (
    INIT,
    read_in_parts,
    start_folder,
    train_and_publish,
    training_resources,
)
from reptok.configs import GeneratorConfig, TextEncoderConfig
from reptok.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainGeneratorConfig:
    """The generator and its training.

    Attributes:
        generator: Sizes, and what it is conditioned on.
        train: Length, optimiser, rhythm.
        text_encoder: Frozen language model, for generator.condition "text".
        init: A published model to start from; "" for none.
    """

    generator: GeneratorConfig
    train: TrainConfig
    text_encoder: TextEncoderConfig | None = None
    init: str = field(default="", metadata=INIT)


class TrainGenerator(Stage):
    """Train a token generator and publish its averaged weights as a folder."""

    name, output = "train_generator", "generator"
    inputs: tuple[str, ...] = ("dataset", "tokens", "tokenizer")
    modules = ("pipelines.training.launch",)
    config: TrainGeneratorConfig

    def __init__(self, config: TrainGeneratorConfig):
        """The tokenizer, whose tokens are trained on, only draws the pictures on the way."""
        super().__init__(config)
        self.resources = training_resources(config.train)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.training.generator import GeneratorTraining

        config = self.config
        text_encoder = config.text_encoder
        if text_encoder:
            fetch(text_encoder, "text_encoder.path")
            text_encoder = located(text_encoder, inputs)
        training = GeneratorTraining(
            train=config.train,
            generator=config.generator,
            dataset=read_in_parts(inputs["dataset"]),
            tokens=read_in_parts(inputs["tokens"]),
            tokenizer=inputs["tokenizer"],
            text_encoder=text_encoder,
            init=start_folder(config.init),
        )
        return train_and_publish(training, out)
