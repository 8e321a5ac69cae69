"""A model of emoji that has not been trained."""

from pathlib import Path

import pytest
import torch

from reptok.configs import (
    AutoencoderConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    RepTokConfig,
    TextEncoderConfig,
)
from reptok.generator.generator import TokenGenerator
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import save_pretrained
from reptok.text_encoder import TextEncoder
from reptok.tokenizer import RepTok

ZOO = Path(__file__).parents[3] / "zoo" / "emoji"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A folder of an untrained model on the networks of the repository."""
    torch.manual_seed(0)
    tokenizer = RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(ZOO / "encoder"), image_size=64),
            decoder=DecoderConfig(width=256, depth=1, heads=8, patch_size=4, latent_size=8,
                                  latent_channels=6, token_dim=256, mapping_width=16),
            autoencoder=AutoencoderConfig(path=str(ZOO / "autoencoder")),
        )
    )  # fmt: skip
    generator = TokenGenerator(
        GeneratorConfig(token_dim=256, condition="text", text_dim=128, dim=32, depth=1, heads=2)
    )
    text = TextEncoder(TextEncoderConfig(kind="clip", path=str(ZOO / "text_encoder"), max_length=32))
    folder = tmp_path_factory.mktemp("model")
    save_pretrained(RepTokPipeline(tokenizer, generator, text), folder)
    return folder
