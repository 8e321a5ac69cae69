import pytest
import torch

from reptok.autoencoder import Autoencoder
from reptok.configs import AutoencoderConfig, DecoderConfig, EncoderConfig, RepTokConfig
from reptok.tokenizer import RepTok


def make(tiny_models, awake=True, **encoder):
    torch.manual_seed(0)
    tokenizer = RepTok(
        RepTokConfig(
            encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32, **encoder),
            decoder=DecoderConfig(
                width=32,
                depth=1,
                heads=2,
                token_dim=32,
                latent_size=4,
                num_tokens=encoder.get("num_tokens", 1),
            ),
            autoencoder=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
        )
    )
    with torch.no_grad():
        for p in tokenizer.trainable_parameters() if awake else ():
            p.add_(torch.randn_like(p) * 0.1)
    return tokenizer


@pytest.fixture
def tokenizer(tiny_models):
    return make(tiny_models)


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_shapes(tokenizer, images, tiny_models):
    token = tokenizer.tokenize(images)
    assert token.shape == (3, 32)
    assert tokenizer.detokenize_latent(token, num_steps=2).shape == (3, 4, 4, 4)
    assert tokenizer.reconstruct(images, num_steps=2).shape == (3, 3, 32, 32)
    assert make(tiny_models, num_tokens=3).tokenize(images).shape == (3, 3, 32)


def test_a_fresh_decoder_loses_the_energy_of_data_minus_noise(tiny_models, images):
    tokenizer = make(tiny_models, awake=False)
    latents, noise = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4)
    losses = tokenizer.losses(images, latents=latents, noise=noise)
    torch.testing.assert_close(losses.velocity, (latents - noise).square().mean((1, 2, 3)))
    torch.testing.assert_close(losses.preservation, torch.zeros(3), atol=1e-6, rtol=0)


def test_given_parts_are_used(tokenizer, images):
    latents, noise, t = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4), torch.rand(3)
    frozen = tokenizer.encoder.frozen(images)
    a = tokenizer.losses(images, latents=latents, noise=noise, t=t)
    b = tokenizer.losses(images, latents=latents, noise=noise, t=t, frozen_token=frozen[:, 0])
    assert torch.equal(a.velocity, b.velocity) and torch.equal(a.preservation, b.preservation)
    point = (1 - t)[:, None, None, None] * noise + t[:, None, None, None] * latents
    v = tokenizer.velocity(point, t, tokenizer.tokenize(images))
    torch.testing.assert_close(a.velocity, (v - (latents - noise)).square().mean((1, 2, 3)))


def test_gradient_reaches_embedding_projection_and_decoder_alone(tokenizer, images):
    losses = tokenizer.losses(images)
    (losses.velocity.mean() + 0.1 * losses.preservation.mean()).backward()
    idle = {n for n, p in tokenizer.named_parameters() if p.grad is None}
    assert all(n.startswith(("encoder.vit.", "autoencoder.")) for n in idle)
    assert {n for n, p in tokenizer.named_parameters() if p.requires_grad} & idle == set()


def test_a_picture_does_not_depend_on_its_batch(tokenizer, images):
    token = tokenizer.tokenize(images)
    together = tokenizer.detokenize(token, num_steps=3, seed=[4, 5, 6])
    torch.testing.assert_close(
        together[1:2], tokenizer.detokenize(token[1:2], num_steps=3, seed=5), atol=1e-4, rtol=0
    )


def test_trainable_state_is_what_the_configuration_does_not_give(tokenizer, tiny_models, images):
    state = tokenizer.trainable_state_dict()
    assert not any(k.startswith(("encoder.vit", "autoencoder")) for k in state)
    other = make(tiny_models, awake=False)
    other.load_trainable_state_dict(state)
    token = tokenizer.tokenize(images)
    assert torch.equal(other.tokenize(images), token)
    assert torch.equal(other.detokenize(token, num_steps=2), tokenizer.detokenize(token, num_steps=2))
    wrong = {**state, "decoder.extra": torch.zeros(1)}
    del wrong["encoder.embedding"]
    with pytest.raises(ValueError, match=r"missing encoder\.embedding; not expected decoder\.extra"):
        other.load_trainable_state_dict(wrong)


def test_latents_are_scaled_moments(tiny_models, images):
    vae = Autoencoder(AutoencoderConfig(path=str(tiny_models / "autoencoder"), scale=0.5, shift=0.25))
    moments = vae.encode_moments(images)
    mean, logvar = moments.chunk(2, dim=1)
    torch.testing.assert_close(vae.encode(images), (mean - 0.25) * 0.5)
    noise = torch.randn_like(mean)
    sample = vae.latents_from_moments(moments, noise)
    torch.testing.assert_close(sample, (mean + torch.exp(logvar / 2) * noise - 0.25) * 0.5)
    torch.testing.assert_close(
        vae.decode(vae.encode(images)), vae.vae.decode(mean).sample, atol=1e-5, rtol=1e-4
    )


def test_latents_of_another_vae_are_refused(tiny_models):
    config = AutoencoderConfig(path=str(tiny_models / "autoencoder"))
    vae = Autoencoder(config)
    vae.spec.check(Autoencoder(config).spec)
    other = Autoencoder(config)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"vae_digest.*Rerun encode_latents"):
        vae.spec.check(other.spec)
    rescaled = Autoencoder(AutoencoderConfig(path=config.path, scale=1.0))
    with pytest.raises(ValueError, match=r"scale 0\.18215 is not 1\.0"):
        vae.spec.check(rescaled.spec)


def test_what_a_user_can_get_wrong(tokenizer, tiny_models):
    with pytest.raises(ValueError, match="image sides"):
        tokenizer.autoencoder.encode_moments(torch.zeros(1, 3, 30, 30))
    with pytest.raises(ValueError, match=r"tokens must be \(B, 1, 32\)"):
        tokenizer.detokenize(torch.zeros(2, 5))
    with pytest.raises(OSError, match="there is no folder"):
        Autoencoder(AutoencoderConfig(path=str(tiny_models / "nothing")))
    encoder = EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32)
    decoder = DecoderConfig(width=64, depth=1, heads=2, token_dim=64)
    vae = AutoencoderConfig(path=str(tiny_models / "autoencoder"))
    with pytest.raises(ValueError, match=r"decoder\.token_dim is 64, but the encoder's width is 32"):
        RepTok(RepTokConfig(encoder=encoder, decoder=decoder, autoencoder=vae))


def test_draws_share_one_encoding(tokenizer, images):
    latents, noise, t = torch.randn(6, 4, 4, 4), torch.randn(6, 4, 4, 4), torch.rand(6)
    frozen = tokenizer.encoder.frozen(images)
    both = tokenizer.losses(images, latents=latents, noise=noise, t=t, frozen_token=frozen)
    apart = [
        tokenizer.losses(images, latents=latents[part], noise=noise[part], t=t[part], frozen_token=frozen)
        for part in (slice(3), slice(3, 6))
    ]
    torch.testing.assert_close(both.velocity, (apart[0].velocity + apart[1].velocity) / 2)
    torch.testing.assert_close(both.preservation, apart[0].preservation)


def test_without_images_the_decoder_learns_from_the_frozen_token(tokenizer, images):
    latents, noise, t = torch.randn(3, 4, 4, 4), torch.randn(3, 4, 4, 4), torch.rand(3)
    frozen = tokenizer.encoder.frozen(images)
    losses = tokenizer.losses(None, latents=latents, noise=noise, t=t, frozen_token=frozen)
    x_t = (1 - t[:, None, None, None]) * noise + t[:, None, None, None] * latents
    velocity = tokenizer.velocity(x_t, t, frozen)
    torch.testing.assert_close(losses.velocity, (velocity - (latents - noise)).square().mean((1, 2, 3)))
    losses.velocity.sum().backward()
    assert tokenizer.encoder.embedding.grad.abs().max() == 0
    assert all(p.grad is not None for p in tokenizer.trainable_parameters())
    with pytest.raises(ValueError, match="need latents and frozen_token"):
        tokenizer.losses(None, latents=latents)
