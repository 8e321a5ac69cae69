"""Stage train_generator: the velocity of tokens under a class or a text; no image is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.stages.training import train_and_publish, training_resources
from pipelines.stages.weights import fetch, resolve
from reptok.configs import GeneratorConfig, TextEncoderConfig
from reptok.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainGeneratorConfig:
    """The generator and its training.

    Attributes:
        generator: Sizes, and what it is conditioned on.
        train: Length, optimiser, rhythm.
        text_encoder: Frozen language model, for generator.condition "text".
        weights_digest: Digest of the language model where it is a local folder: other weights, another
            artifact.
    """

    generator: GeneratorConfig
    train: TrainConfig
    text_encoder: TextEncoderConfig | None = None
    weights_digest: str = ""


class TrainGenerator(Stage):
    """Train a token generator with Ray Train and publish its averaged weights as a folder."""

    name, output = "train_generator", "generator"
    inputs: tuple[str, ...] = ("dataset", "tokens", "tokenizer")
    modules = ("pipelines.training.generator",)
    config: TrainGeneratorConfig

    def __init__(self, config: TrainGeneratorConfig, models: tuple[str, ...] = ()):
        """Read also an artifact "text_encoder" where `models` names it; it replaces the configured path.

        The tokenizer, whose tokens are trained on, only draws the pictures on the way.
        """
        super().__init__(config)
        self.inputs = (*type(self).inputs, *models)
        self.resources = training_resources(config.train)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.training.generator import train_generator

        config = self.config
        models = {kind: inputs[kind] for kind in self.inputs if kind == "text_encoder"}
        text_encoder = config.text_encoder and resolve(models, "text_encoder", config.text_encoder)
        if text_encoder:
            fetch(text_encoder, "text_encoder.path")
        settings = {
            "generator": config.generator,
            "text_encoder": text_encoder,
            "dataset": inputs["dataset"],
            "tokens": inputs["tokens"],
            "tokenizer": inputs["tokenizer"],
        }
        return train_and_publish(train_generator, settings, config.train, out)
