"""Stage train_tokenizer: `[cls]` embedding, projection and decoder; all that is frozen is cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.dag.reference import fetch, located
from pipelines.dag.stage import Artifact, Stage, Workspace
from pipelines.stages.training import INIT, read_in_parts, start_folder, train_and_publish, training_resources
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """The tokenizer and its training.

    Attributes:
        encoder: Self-supervised encoder that gives the token.
        decoder: Flow transformer that decodes it.
        vae: The autoencoder whose latents it decodes to; the one of `encode_latents`.
        train: Length, optimiser, rhythm.
        preservation_weight: Weight of 1 - cosine(token, frozen token) (paper, equation 3).
        draws: Noises and times that an encoded image is decoded from in a step (1 in the paper); where the
            encoder costs as much as the decoder, several give more learning for the same work.
        decoder_first_steps: Length of a first phase in which the decoder learns alone, from the cached frozen
            tokens, and no image is encoded (0 in the paper).
        init: A published model to start from; "" for none.
    """

    train: TrainConfig
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    vae: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    preservation_weight: float = 0.1
    draws: int = 1
    decoder_first_steps: int = 0
    init: str = field(default="", metadata=INIT)

    def __post_init__(self) -> None:
        if self.decoder_first_steps and self.encoder.trainable == "everything":
            raise ValueError(
                f"train.decoder_first_steps {self.decoder_first_steps} trains without images, so that what "
                "encoder.trainable=everything names would have no gradient; set that to cls, or this to 0"
            )


class TrainTokenizer(Stage):
    """Train a tokenizer and publish its averaged weights as a self-contained folder."""

    name, output = "train_tokenizer", "tokenizer"
    inputs: tuple[str, ...] = ("dataset", "latents")
    modules = ("pipelines.training.launch",)
    config: TrainTokenizerConfig

    def __init__(self, config: TrainTokenizerConfig):
        super().__init__(config)
        self.resources = training_resources(config.train)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from reptok.training.tokenizer import TokenizerTraining

        config = self.config
        fetch(config.encoder, "encoder.path")
        fetch(config.vae, "vae.path")
        encoder, vae = located(config.encoder, inputs), located(config.vae, inputs)
        training = TokenizerTraining(
            train=config.train,
            tokenizer=RepTokConfig(encoder=encoder, decoder=config.decoder, autoencoder=vae),
            dataset=read_in_parts(inputs["dataset"]),
            latents=read_in_parts(inputs["latents"]),
            preservation_weight=config.preservation_weight,
            draws=config.draws,
            decoder_first_steps=config.decoder_first_steps,
            init=start_folder(config.init),
        )
        return train_and_publish(training, out)
