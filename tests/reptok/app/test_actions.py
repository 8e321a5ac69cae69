"""What the app's tabs do, against values that are known without it."""

import numpy as np
import pytest
import torch
from PIL import Image

from reptok.app import actions
from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.pipeline import RepTokPipeline
from tests.fixtures.tiny_tokenizer import tiny_tokenizer


@pytest.fixture(scope="module")
def pipe(tiny_models):
    """A model whose token differs from the frozen one, and whose generator heeds its class."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(tiny_models)
    generator = TokenGenerator(
        GeneratorConfig(token_dim=32, dim=16, depth=1, condition="class", num_classes=2)
    )
    for parameter in (*tokenizer.trainable_parameters(), *generator.parameters()):
        parameter.data += 0.2 * torch.randn(parameter.shape)
    return RepTokPipeline(tokenizer, generator, class_names=["cat", "dog"]).eval()


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    for name, size in (("first", (50, 40)), ("second", (32, 32))):
        noise = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    return tmp_path / "first.png", tmp_path / "second.png"


def pixels(picture):
    return np.asarray(picture).astype(int)


def test_a_reconstruction_is_the_tokenizers_and_its_cosine_that_of_the_two_tokens(pipe, files):
    tokenizer = pipe.tokenizer
    image = actions.read_picture(tokenizer, files[1])
    exact = np.asarray(Image.open(files[1])).astype(int)
    made = actions.reconstruct(tokenizer, image, num_steps=3, seed=5)
    assert (pixels(made.original) == exact).all()
    again = tokenizer.reconstruct(image[None], num_steps=3, seed=5)[0].clamp(-1, 1)
    assert abs(pixels(made.tokenizer) - (again.permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 0.51
    kept = tokenizer.autoencoder.decode(tokenizer.autoencoder.encode(image[None]))[0].clamp(-1, 1)
    assert abs(pixels(made.autoencoder) - (kept.permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 0.51

    with torch.no_grad():
        token = tokenizer.encoder(image[None])[0, 0].numpy().astype(np.float64)
    frozen = tokenizer.encoder.frozen(image[None])[0, 0].numpy().astype(np.float64)
    cosine = token @ frozen / np.sqrt((token @ token) * (frozen @ frozen))
    assert made.cosine == pytest.approx(cosine, abs=1e-5) and cosine < 0.999


def test_the_ways_ends_are_the_pictures_own_reconstructions(pipe, files):
    tokenizer = pipe.tokenizer
    images = [actions.read_picture(tokenizer, file) for file in files]
    own = [actions.reconstruct(tokenizer, image, num_steps=3, seed=5).tokenizer for image in images]
    first, _, last = actions.between_images(tokenizer, *images, 0.5, num_steps=3, seed=5)
    assert abs(pixels(first) - pixels(own[0])).max() <= 1 and abs(pixels(last) - pixels(own[1])).max() <= 1
    assert abs(pixels(own[0]) - pixels(own[1])).max() > 10
    for weight, end in ((0.0, own[0]), (1.0, own[1])):
        _, between, _ = actions.between_images(tokenizer, *images, weight, num_steps=3, seed=5)
        assert abs(pixels(between) - pixels(end)).max() <= 1


def test_the_middle_is_decoded_from_the_mean_of_the_tokens(pipe, files):
    tokenizer = pipe.tokenizer
    images = torch.stack([actions.read_picture(tokenizer, file) for file in files])
    mean = tokenizer.tokenize(images).mean(0, keepdim=True)
    wanted = tokenizer.detokenize(mean, num_steps=3, seed=5)[0].clamp(-1, 1).permute(1, 2, 0).numpy()
    _, between, _ = actions.between_images(tokenizer, *images, 0.5, num_steps=3, seed=5)
    assert abs(pixels(between) - (wanted + 1) * 127.5).max() <= 1


def test_between_classes_the_ends_are_what_the_pipeline_makes_of_that_seed(pipe):
    guidance = actions.Guidance(scale=2.0, interval=(0.0, 1.0))
    first, between, last = actions.between_conditions(
        pipe, ["cat", "dog"], 0.5, guidance=guidance, num_steps=4, decoder_steps=3, seed=7
    )
    for shown, name in ((first, "cat"), (last, "dog")):
        (own,) = pipe(name, cfg_scale=2.0, guidance_interval=(0.0, 1.0), num_steps=4, decoder_steps=3, seed=7)
        assert abs(pixels(shown) - pixels(own)).max() <= 1
    assert abs(pixels(first) - pixels(last)).max() > 2
    assert abs(pixels(between) - pixels(first)).max() > 0


def test_what_cannot_be_is_a_sentence(pipe, tmp_path):
    with pytest.raises(ValueError, match="there is no picture yet"):
        actions.read_picture(pipe.tokenizer, None)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot decode image"):
        actions.read_picture(pipe.tokenizer, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"from 0\.9 to 0\.3"):
        actions.Guidance(interval=(0.9, 0.3))
