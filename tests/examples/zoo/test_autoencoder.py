"""The autoencoder's start and the weights in the repository."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from examples.zoo.autoencoder import (
    autoencoder_loss,
    build_autoencoder,
    measure_autoencoder,
    psnr,
    reconstruct,
)
from examples.zoo.crops import CropPool
from examples.zoo.linear_start import start_linear
from examples.zoo.recipes import AutoencoderRecipe

WEIGHTS = Path(__file__).parents[3] / "zoo" / "autoencoder"


@pytest.fixture(scope="module")
def started():
    torch.manual_seed(0)
    model = build_autoencoder(AutoencoderRecipe())
    start_linear(model, CropPool.draw("train", 8, 0).images(slice(None)))
    return model


def test_it_starts_as_a_linear_codec(started):
    images = CropPool.draw("val", 2, 1).images(slice(None))
    blocks = torch.nn.functional.avg_pool2d(images, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert psnr(images, reconstruct(started, images)).mean() > psnr(images, blocks).mean() - 2  # darker rims
    with torch.no_grad():
        posterior = started.encode(images).latent_dist
        dark = started.encode(images / 2).latent_dist.mean
        black = started.encode(torch.zeros_like(images)).latent_dist.mean
    assert posterior.mean.shape == (36, 4, 8, 8)
    assert posterior.mean.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1, 1], abs=0.2)
    torch.testing.assert_close(dark - black, (posterior.mean - black) / 2, atol=0.15, rtol=0.05)


def test_the_loss_is_the_error_and_reaches_every_weight(started):
    images = CropPool.draw("train", 1, 2).images(slice(0, 4))
    loss, figures = autoencoder_loss(
        started, images, torch.zeros(4, 4, 8, 8), AutoencoderRecipe(kl_weight=0.0)
    )
    with torch.no_grad():
        error = started(images).sample - images
    expected = error.square().mean((1, 2, 3)).sqrt().mean()
    torch.testing.assert_close(loss.detach(), expected, atol=1e-3, rtol=1e-3)
    assert figures["kl"] > 0
    loss.backward()
    assert sum(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in started.parameters()) > 60


def test_psnr_of_a_known_error():
    assert psnr(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 0.2)).tolist() == pytest.approx([20, 20])


def test_the_weights_in_the_repository_reach_26_db_on_validation_crops():
    stats = measure_autoencoder(WEIGHTS, AutoencoderRecipe(validation_per_subject=5))
    assert stats["val_psnr"] >= 26
    assert (WEIGHTS / "diffusion_pytorch_model.safetensors").stat().st_size <= 5e6
    model = AutoencoderKL.from_pretrained(WEIGHTS, torch_dtype=torch.float32)
    with torch.no_grad():
        latents = model.encode(CropPool.draw("val", 4, 9).images(slice(None))).latent_dist.mean
    assert (latents * model.config.scaling_factor).std().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("equal", "ratio"), [(True, 1.0), (False, 5.0)])
def test_channels_have_one_deviation_or_those_of_their_components(equal, ratio):
    """Blocks of one grey, and a fifth as strong a chequerboard in them: two components, of known strength."""
    random = torch.Generator().manual_seed(0)
    grey, strength = (torch.randn(64, 1, 8, 8, generator=random) for _ in range(2))
    board = (-1.0) ** (torch.arange(64)[:, None] + torch.arange(64))
    large, fine = (x.repeat_interleave(8, 2).repeat_interleave(8, 3) for x in (grey, strength))
    images = (0.2 * large + 0.04 * fine * board).expand(-1, 3, -1, -1)
    torch.manual_seed(0)
    model = build_autoencoder(AutoencoderRecipe(latent_channels=2))
    start_linear(model, images, equal)
    with torch.no_grad():
        first, second = model.encode(images).latent_dist.mean.std((0, 2, 3)).tolist()
    assert first / second == pytest.approx(ratio, rel=0.1)
    assert (first**2 + second**2) / 2 == pytest.approx(1.0, rel=0.1)
