import pytest
import torch

from reptok.configs import AutoencoderConfig, GeneratorConfig, LatentTokenizerConfig
from reptok.generator import TokenGenerator
from reptok.latent_tokenizer import LatentTokenizer
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained, save_pretrained
from tests.fixtures import trainings


@pytest.fixture(scope="module")
def tokenizer(tiny_models):
    vae = AutoencoderConfig(path=str(tiny_models / "autoencoder"))
    return LatentTokenizer(LatentTokenizerConfig(autoencoder=vae, image_size=32, patch_size=2)).eval()


def test_tokens_are_the_patches_of_the_latent_and_nothing_is_lost(tokenizer):
    images = torch.rand(3, 3, 32, 32) * 2 - 1
    tokens, latents = tokenizer.tokenize(images), tokenizer.autoencoder.encode(images)
    assert tokens.shape == (3, tokenizer.num_tokens, tokenizer.token_dim) == (3, 4, 16)
    first = latents[:, :, :2, :2].permute(0, 2, 3, 1).flatten(1)  # (row, column, channel)
    torch.testing.assert_close(tokens[:, 0], first, rtol=0, atol=0)
    wanted = tokenizer.autoencoder.decode(latents)
    torch.testing.assert_close(tokenizer.reconstruct(images), wanted, rtol=0, atol=1e-4)
    assert not any(p.requires_grad for p in tokenizer.parameters())


def test_a_transformer_over_latents_learns_and_its_pictures_survive_saving(tokenizer, tmp_path):
    torch.manual_seed(0)
    config = GeneratorConfig(
        kind="transformer",
        condition="class",
        num_classes=2,
        num_tokens=4,
        token_dim=16,
        dim=48,
        depth=2,
        heads=4,
    )
    generator = TokenGenerator(config)
    tokens, labels = tokenizer.tokenize(torch.rand(2, 3, 32, 32) * 2 - 1), torch.tensor([0, 1])
    generator.set_token_stats(tokens.mean((0, 1)), tokens.std((0, 1)))
    optimizer = torch.optim.Adam(generator.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        batch = torch.arange(64) % 2
        pipe = RepTokPipeline(tokenizer, generator, class_names=["red", "blue"])
        loss = generator.losses(tokens[batch], pipe.condition(labels=labels[batch].tolist())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
    save_pretrained(pipe.eval(), tmp_path)
    assert "4 continuous tokens" in (tmp_path / "README.md").read_text()
    pictures = [
        p(labels=["red"], num_images=2, num_steps=4, seed=3) for p in (pipe, load_pretrained(tmp_path))
    ]
    assert [x.tobytes() for x in pictures[0]] == [x.tobytes() for x in pictures[1]]


def test_a_size_that_does_not_divide_is_refused(tokenizer):
    with pytest.raises(ValueError, match="40 must be a multiple of 16"):
        LatentTokenizer(LatentTokenizerConfig(image_size=40, patch_size=2), autoencoder=tokenizer.autoencoder)


def test_a_misspelt_keyword_is_refused_by_both_tokenizers(tokenizer, tiny_models):
    """This one's keywords change nothing, which is no reason to take every word for one."""
    images = torch.zeros(1, 3, 32, 32)
    for model in (tokenizer, trainings.tokenizer(tiny_models)):
        token = model.tokenize(images)
        assert model.detokenize(token, num_steps=1).shape == model.reconstruct(images, num_steps=1).shape
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            model.detokenize(token, steps=1)
        with pytest.raises(TypeError, match="unexpected keyword argument"):
            model.reconstruct(images, num_step=1)
