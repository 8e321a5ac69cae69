"""A training starts from a published model: what has a place is taken, what means something else is fresh."""

import dataclasses

import pytest
import torch

from reptok.configs import (
    AutoencoderConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    RepTokConfig,
)
from reptok.encoder.vit import load_vit, save_vit
from reptok.generator.generator import TokenGenerator
from reptok.pretrained import save_generator, save_tokenizer
from reptok.tokenizer import RepTok
from reptok.training.start import expect, same_network, start_generator, start_tokenizer

GENERATOR = GeneratorConfig(token_dim=32, dim=16, depth=1, heads=2, condition="text", text_dim=32)


def tokenizer(models, seed, encoder="encoder", **decoder):
    torch.manual_seed(seed)
    made = RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(models / encoder), image_size=32),
            decoder=DecoderConfig(
                **{"width": 32, "depth": 1, "heads": 2, "token_dim": 32, "latent_size": 4, **decoder}
            ),
            autoencoder=AutoencoderConfig(path=str(models / "autoencoder")),
        )
    )
    with torch.no_grad():
        for parameter in made.trainable_parameters():
            parameter.add_(torch.randn_like(parameter))
    return made


def generator(seed, **changes):
    torch.manual_seed(seed)
    return TokenGenerator(dataclasses.replace(GENERATOR, tokens_mlp_dim=0, channels_mlp_dim=0, **changes))


def test_the_same_tokenizer_is_taken_whole(tiny_models, tmp_path):
    published, new = tokenizer(tiny_models, 0), tokenizer(tiny_models, 1)
    save_tokenizer(published, tmp_path)
    start = start_tokenizer(new, tmp_path)
    assert start.fresh == () and str(start).endswith("fresh: nothing")
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(new.reconstruct(pixels, num_steps=2), published.reconstruct(pixels, num_steps=2))


def test_a_deeper_decoder_keeps_its_new_block(tiny_models, tmp_path):
    save_tokenizer(tokenizer(tiny_models, 0), tmp_path)
    new = tokenizer(tiny_models, 1, depth=2)
    before = {name: value.clone() for name, value in new.trainable_state_dict().items()}
    start = start_tokenizer(new, tmp_path)
    assert start.fresh and all(name.startswith("decoder.blocks.1.") for name in start.fresh)
    after = new.trainable_state_dict()
    assert all(torch.equal(before[name], after[name]) for name in start.fresh)
    assert not torch.equal(before["encoder.embedding"], after["encoder.embedding"])


def test_another_encoders_embedding_stays_behind(tiny_models, tmp_path):
    """It is of the same width; added to another network's sum it would mean nothing."""
    vit, architecture = load_vit(tiny_models / "encoder", 32)
    with torch.no_grad():
        vit.blocks[0].mlp.fc1.bias.add_(1)
    save_vit(vit, architecture, tmp_path / "encoder")
    save_tokenizer(tokenizer(tiny_models, 0), tmp_path / "published")
    (tmp_path / "autoencoder").symlink_to(tiny_models / "autoencoder")
    assert start_tokenizer(tokenizer(tmp_path, 1), tmp_path / "published").fresh == ("encoder.embedding",)


def test_another_vaes_latents_are_refused(tiny_models, tmp_path):
    save_tokenizer(tokenizer(tiny_models, 0), tmp_path / "published")
    config = tokenizer(tiny_models, 1).config
    other = dataclasses.replace(config, autoencoder=dataclasses.replace(config.autoencoder, scale=0.5))
    with pytest.raises(ValueError, match="do not fit"):
        start_tokenizer(RepTok(other), tmp_path / "published")


def test_what_reads_another_language_model_is_fresh(tmp_path):
    published = generator(0)
    published.set_token_stats(torch.full((32,), 5.0), torch.full((32,), 2.0))
    save_generator(published, tmp_path)
    new = generator(1)
    start = start_generator(new, tmp_path, same_classes=False, same_text=False)
    assert start.fresh and all(name.startswith("text.") for name in start.fresh)
    assert torch.equal(
        new.network.blocks[0].channel_mlp[0].weight, published.network.blocks[0].channel_mlp[0].weight
    )
    assert new.stats.mean.abs().max() == 0  # of the new data, not of the old
    assert start_generator(generator(1), tmp_path, same_classes=False, same_text=True).fresh == ()
    wider = start_generator(generator(1, text_dim=48), tmp_path, same_classes=False, same_text=True)
    assert "text.linear.weight" in wider.fresh and "text.out_norm.weight" in wider.taken


def test_whitened_tokens_are_those_that_the_network_knows(tmp_path):
    published = generator(0, whiten=True)
    tokens = torch.randn(50, 32) @ torch.randn(32, 32)
    published.set_token_stats(tokens.mean(0), tokens.std(0), tokens.T.cov())
    save_generator(published, tmp_path)
    new = generator(1, whiten=True)
    start = start_generator(new, tmp_path, same_classes=False, same_text=True)
    assert start.fresh == ()
    assert torch.equal(new.stats.normalize(tokens), published.stats.normalize(tokens))
    plain = generator(1)
    with pytest.raises(ValueError, match=r"set generator\.whiten=true"):
        start_generator(plain, tmp_path, same_classes=False, same_text=True)
    with pytest.raises(ValueError, match=r"set generator\.whiten=true"):
        expect(plain.state_dict(), tmp_path, lambda name: False)
    save_generator(plain, tmp_path)
    with pytest.raises(ValueError, match=r"set generator\.whiten=false"):
        start_generator(new, tmp_path, same_classes=False, same_text=True)


def test_as_many_classes_are_not_the_same_classes(tmp_path):
    by_class = {"condition": "class", "num_classes": 3, "text_dim": 0}
    save_generator(generator(0, **by_class), tmp_path)
    fresh = start_generator(generator(1, **by_class), tmp_path, same_classes=False, same_text=False).fresh
    assert fresh and all(name.startswith("classes.") for name in fresh)
    assert start_generator(generator(1, **by_class), tmp_path, same_classes=True, same_text=False).fresh == ()


def test_a_model_of_other_sizes_is_refused(tmp_path):
    save_generator(generator(0), tmp_path)
    with pytest.raises(ValueError, match="no weight of"):
        start_generator(
            generator(1, token_dim=8, dim=8, text_dim=8, num_learnable_tokens=3),
            tmp_path,
            same_classes=False,
            same_text=False,
        )


def test_networks_are_the_same_by_their_numbers(tiny_models, tmp_path):
    save_tokenizer(tokenizer(tiny_models, 0), tmp_path)
    assert same_network(tiny_models / "encoder", tmp_path / "encoder")
    assert same_network(tiny_models / "autoencoder", tmp_path / "autoencoder")
    assert not same_network(tiny_models / "encoder", tiny_models / "autoencoder")
