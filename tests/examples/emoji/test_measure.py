"""The figures of a model are taken of what it makes, and its pictures are written."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.emoji import measure
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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder of an untrained model on the networks of the repository."""
    torch.manual_seed(0)
    tokenizer = RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(ZOO / "encoder"), image_size=64),
            decoder=DecoderConfig(width=256, depth=1, heads=8, patch_size=4, latent_size=8,
                                  latent_channels=16, token_dim=256, mapping_width=16),
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


def test_an_untrained_model_is_told_as_one(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measure, "TRAINING", 40)
    assert measure.main([str(model), f"out={tmp_path}", "prompts=6", "seed=3"]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("known", "held_out"):
        assert figures[f"{name}/autoencoder_psnr"] > 24, "the autoencoder is a trained one"
        assert figures[f"{name}/token_psnr"] < 15, "the decoder is not"
        assert figures[f"{name}/recognised_n"] == 6
    assert figures["new/drawn/ground"] == figures["emoji/drawn/ground"] == 100
    assert figures["combination/ground"] < 60 and figures["combination/ground_n"] == 6
    assert "known/autoencoder_psnr" in capsys.readouterr().out
    with Image.open(tmp_path / "prompts_combination.webp") as sheet:
        assert sheet.height > 6 * 90 and np.asarray(sheet.convert("RGB")).std() > 20


def test_wrong_use_says_how(capsys):
    assert measure.main([]) == measure.main(["model", "colour=red"]) == 2
    assert "python -m examples.emoji.measure MODEL" in capsys.readouterr().err
