"""The workflow that trains the small networks of `zoo/`, and the demo's models longer, on more crops."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from examples.zoo.recipes import (
    AutoencoderRecipe,
    CaptionerRecipe,
    EmojiAutoencoderRecipe,
    EmojiEncoderRecipe,
    EmojiTextEncoderRecipe,
    EncoderRecipe,
    EnglishRecipe,
    TextEncoderRecipe,
)
from examples.zoo.stages import (
    PretrainEmojiEncoder,
    PretrainEncoder,
    TrainAutoencoder,
    TrainCaptioner,
    TrainClassGenerator,
    TrainEmojiAutoencoder,
    TrainEmojiTextEncoder,
    TrainEnglish,
    TrainTextEncoder,
)
from pipelines import registry
from pipelines.configuration.schema import Config
from pipelines.dag.stage import Stage
from pipelines.registry import Workflow
from pipelines.stages.train_generator import TrainGeneratorConfig
from pipelines.workflows import reptok


@dataclass(frozen=True, kw_only=True)
class ZooRecipes:
    """How the small networks are trained, where the configuration refers to them as artifacts.

    Attributes:
        autoencoder: Recipe of `zoo/autoencoder`.
        encoder: Recipe of `zoo/encoder`.
        text_encoder: Recipe of `zoo/text_encoder`.
        captioner: Recipe of `zoo/captioner`.
        english: Recipe of `zoo/english`.
        emoji_autoencoder: Recipe of `zoo/emoji/autoencoder`.
        emoji_encoder: Recipe of `zoo/emoji/encoder`.
        emoji_text_encoder: Recipe of `zoo/emoji/text_encoder`.
    """

    autoencoder: AutoencoderRecipe = field(default_factory=AutoencoderRecipe)
    encoder: EncoderRecipe = field(default_factory=EncoderRecipe)
    text_encoder: TextEncoderRecipe = field(default_factory=TextEncoderRecipe)
    captioner: CaptionerRecipe = field(default_factory=CaptionerRecipe)
    english: EnglishRecipe = field(default_factory=EnglishRecipe)
    emoji_autoencoder: EmojiAutoencoderRecipe = field(default_factory=EmojiAutoencoderRecipe)
    emoji_encoder: EmojiEncoderRecipe = field(default_factory=EmojiEncoderRecipe)
    emoji_text_encoder: EmojiTextEncoderRecipe = field(default_factory=EmojiTextEncoderRecipe)


def foundations(recipes: ZooRecipes) -> list[Stage]:
    """The small networks' own stages."""
    return [
        TrainAutoencoder(recipes.autoencoder),
        PretrainEncoder(recipes.encoder),
        TrainTextEncoder(recipes.text_encoder),
        TrainCaptioner(recipes.captioner),
        TrainEnglish(recipes.english),
        TrainEmojiAutoencoder(recipes.emoji_autoencoder),
        PretrainEmojiEncoder(recipes.emoji_encoder),
        TrainEmojiTextEncoder(recipes.emoji_text_encoder),
    ]


def build(config: Config, recipes: ZooRecipes) -> list[Stage]:
    """Text to image, and beside its generator one by class."""
    pictures = registry.chosen(config.extras)
    if pictures is None:
        raise ValueError("workflow=zoo trains on an installed source of pictures: choose data=demo")
    labelled = replace(
        config.generator, condition="class", num_classes=pictures.classes(config.extras[pictures.key]),
        text_dim=0, num_learnable_tokens=0,
    )  # fmt: skip
    by_class = TrainClassGenerator(TrainGeneratorConfig(generator=labelled, train=config.train.generator))
    return [*reptok(config), by_class]


WORKFLOW = Workflow(
    key="zoo", config=ZooRecipes, build=build, stages=foundations, conf=Path(__file__).parent / "conf"
)
