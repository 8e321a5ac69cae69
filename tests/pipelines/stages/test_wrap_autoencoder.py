"""The attention baseline's way: the VAE's latent as tokens, through encoding and evaluation."""

import numpy as np
import pytest
import torch

from pipelines.stages.dataset import dataset_rows, dataset_shards, image_batches
from pipelines.stages.encode_tokens import EncodeTokens, EncodeTokensConfig
from pipelines.stages.evaluate_generator import EvaluateGenerator, EvaluateGeneratorConfig
from pipelines.stages.wrap_autoencoder import WrapAutoencoder, WrapAutoencoderConfig
from reptok.configs import AutoencoderConfig, EncoderConfig, GeneratorConfig, LatentTokenizerConfig
from reptok.data.blocks import iterate_blocks
from reptok.data.transforms import to_float
from reptok.generator import TokenGenerator
from reptok.pretrained import load_tokenizer, save_generator

SMALL = {"samples": 12, "neighbours": 5, "generator_steps": 2, "shown_samples": 1, "guidance": (1.0,)}


@pytest.fixture
def wrapped(tiny_models, run_stage):
    vae = AutoencoderConfig(path=str(tiny_models / "autoencoder"))
    config = WrapAutoencoderConfig(tokenizer=LatentTokenizerConfig(autoencoder=vae, image_size=32))
    artifact, stats = run_stage(WrapAutoencoder(config), {}, "tokenizer")
    assert stats == {"tokens": 4.0, "token_dim": 16.0}
    return artifact


def test_the_stored_tokens_are_the_latents_patches(wrapped, dataset, run_stage):
    tokens, _ = run_stage(EncodeTokens(EncodeTokensConfig()), {"dataset": dataset, "tokenizer": wrapped})
    shard = next(shard for shard in dataset_shards(dataset) if dataset_rows(dataset, shard))
    _, images = next(image_batches(dataset, shard.name, 32, 1000))
    wanted = load_tokenizer(wrapped.local_path()).tokenize(to_float(images)).numpy()
    with tokens.open(f"{shard.name}.tar") as file:
        (block,) = iterate_blocks(file)
    np.testing.assert_allclose(block["token"][:, 0], wanted, atol=1e-5)


def test_another_encoder_judges_what_has_none(wrapped, small_world, tiny_models, run_stage, make_artifact):
    config = GeneratorConfig(kind="transformer", num_tokens=4, token_dim=16, dim=16, depth=1, heads=2)
    torch.manual_seed(0)
    generator = make_artifact(
        "generator", lambda out: save_generator(TokenGenerator(config), out.local_path())
    )
    inputs = {"dataset": small_world["dataset"], "tokenizer": wrapped, "generator": generator}
    judge = EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32)
    _, stats = run_stage(EvaluateGenerator(EvaluateGeneratorConfig(**SMALL, judge=judge)), inputs, "report")
    assert "eval/recognised_real" not in stats  # nothing was asked for
    assert stats["eval/gfd_vit_cfg_1_n12"] > stats["eval/fd_vit_training_images_n12"]
    with pytest.raises(ValueError, match=r"name one with evaluate\.judge"):
        run_stage(EvaluateGenerator(EvaluateGeneratorConfig(**SMALL)), inputs, "refused")
