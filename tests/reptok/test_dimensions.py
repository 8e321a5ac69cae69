"""The table of sizes and the folders' own word are those of the networks themselves."""

import json
from pathlib import Path

import pytest
import torch
from timm import create_model

from reptok.autoencoder import build_vae
from reptok.configs import EncoderConfig
from reptok.dimensions import (
    ENCODERS,
    TEXT_ENCODERS,
    VAES,
    LatentDimensions,
    encoder_dimensions,
    latent_dimensions,
    text_dimensions,
    tokenizer_image_size,
)
from reptok.encoder import ssl
from reptok.encoder.tower import input_embeddings, tower_of
from reptok.pretrained import load_tokenizer

ZOO = Path(__file__).resolve().parents[2] / "zoo"
ARCHITECTURES = {
    "dinov2_vits14_reg": "vit_small_patch14_reg4_dinov2",
    "dinov2_vitb14_reg": "vit_base_patch14_reg4_dinov2",
    "dinov2_vitl14_reg": "vit_large_patch14_reg4_dinov2",
    "dinov3_vits16": "vit_small_patch16_dinov3",
    "dinov3_vitb16": "vit_base_patch16_dinov3",
    "dinov3_vitl16": "vit_large_patch16_dinov3",
    "mae_vitb16": "vit_base_patch16_224",
    "clip_vitb16": "vit_base_patch16_clip_quickgelu_224",
}


def check(vit, expected):
    assert vit.num_features == expected.width
    assert vit.patch_embed.patch_size == (expected.patch_size, expected.patch_size)
    assert len(input_embeddings(vit)) == expected.rows
    assert tower_of(vit).takes_extra_rows == expected.plain


def test_every_encoder_is_in_the_table():
    assert ENCODERS.keys() == ssl.ENCODERS.keys()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_hubs_encoders_have_these_sizes(name):
    with torch.device("meta"):
        check(create_model(ARCHITECTURES[name], num_classes=0), ENCODERS[name])


def test_encoders_without_a_hub_have_these_sizes():
    for name in ("random_vitdebug8_reg", "random_vits14_reg"):
        check(ssl.build_encoder(EncoderConfig(name=name, image_size=56)).vit, ENCODERS[name])


def test_a_folder_says_what_its_network_has():
    tokenizer = load_tokenizer(ZOO / "reptok" / "tokenizer")
    check(tokenizer.encoder.vit, encoder_dimensions(ZOO / "reptok" / "tokenizer" / "encoder"))
    vae = tokenizer.autoencoder
    assert latent_dimensions(ZOO / "autoencoder") == LatentDimensions(vae.channels, vae.downsample)
    assert tokenizer_image_size(ZOO / "reptok" / "tokenizer") == tokenizer.image_size
    assert text_dimensions(ZOO / "text_encoder").width == 128
    assert text_dimensions(ZOO / "captioner").width == 128  # the language part of a larger model


def test_the_papers_vae_has_these_sizes():
    with torch.device("meta"):
        config = build_vae().config
    assert VAES["stabilityai/sd-vae-ft-mse"] == LatentDimensions(
        config.latent_channels, 2 ** (len(config.block_out_channels) - 1)
    )
    assert all(known.width > 0 for known in TEXT_ENCODERS.values())


@pytest.mark.parametrize("content", ["{", "[]", "{}", json.dumps({"num_features": True, "model_args": {}})])
def test_a_config_that_does_not_say_is_refused(content, tmp_path):
    for read in (encoder_dimensions, latent_dimensions, text_dimensions, tokenizer_image_size):
        with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
            read(tmp_path)
    (tmp_path / "config.json").write_text(content)
    for read in (encoder_dimensions, latent_dimensions, text_dimensions, tokenizer_image_size):
        with pytest.raises(ValueError, match=r"config\.json"):
            read(tmp_path)
