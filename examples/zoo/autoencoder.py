"""Recipe of the zoo's autoencoders: a tiny `AutoencoderKL` (f8) on crops of photographs, or on emoji."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from examples.zoo.crops import CropPool, Draw
from examples.zoo.linear_start import start_linear
from examples.zoo.loop import Log, ema_update, threads, train_loop
from examples.zoo.recipes import AutoencoderRecipe

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


def build_autoencoder(config: AutoencoderRecipe) -> AutoencoderKL:
    """The untrained network; three halvings of the side, so that 64 pixels become an 8 x 8 latent."""
    levels = len(config.block_out_channels)
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=64,
    )


def autoencoder_loss(
    model: AutoencoderKL, images: Tensor, noise: Tensor, config: AutoencoderRecipe
) -> tuple[Tensor, dict[str, Tensor]]:
    """Root mean square error of each image, averaged, and a mild KL term; images (B, 3, H, W) in [-1, 1]."""
    posterior = model.encode(images).latent_dist
    error = model.decode(posterior.mean + posterior.std * noise).sample - images
    rms = (error.square().mean((1, 2, 3)) + 1e-4).sqrt().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return rms + config.kl_weight * kl, {"rms": rms.detach(), "kl": kl.detach()}


def train_autoencoder(
    config: AutoencoderRecipe, folder: Path, scratch: Path, log: Log, draw: Draw = CropPool.draw
) -> dict[str, float]:
    """Train, save as a diffusers folder (float16) and measure what was saved.

    Args:
        config: the recipe.
        folder: where `AutoencoderKL.from_pretrained` will find the weights.
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).
        draw: gives the pictures.

    Returns:
        PSNR in dB on training and validation crops, and the scaling factor.
    """
    with threads(config.threads):
        torch.manual_seed(config.seed)
        pool = draw("train", config.crops_per_subject, config.seed)
        model = build_autoencoder(config)
        start_linear(model, pool.images(slice(0, 288)), config.equal_channels)
        model = model.to(memory_format=torch.channels_last)
        average = copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.AdamW(
            model.parameters(), config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            chosen = torch.randint(len(pool), (config.batch_size,), generator=generator)
            images = pool.images(chosen).contiguous(memory_format=torch.channels_last)
            noise = torch.randn(config.batch_size, config.latent_channels, 8, 8, generator=generator)
            return autoencoder_loss(model, images, noise, config)

        train_loop(
            "autoencoder",
            config,
            {"model": model, "average": average},
            optimizer,
            step,
            steps=config.steps,
            after_step=lambda i: ema_update(average, model, min(config.ema_decay, (1 + i) / (10 + i))),
            scratch=scratch,
            log=log,
        )
        average.register_to_config(scaling_factor=scaling_factor(average, pool))
        average.half().save_pretrained(folder)
        stats = measure_autoencoder(folder, config, draw)
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats


@torch.no_grad()
def scaling_factor(model: AutoencoderKL, pool: CropPool) -> float:
    """One over the standard deviation of the posterior means of 512 training crops, to four decimals."""
    means = [
        model.encode(pool.images(slice(i, i + 64))).latent_dist.mean
        for i in range(0, min(512, len(pool)), 64)
    ]
    return round(1 / torch.cat(means).std().item(), 4)


@torch.no_grad()
def reconstruct(model: AutoencoderKL, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] through the posterior's mean and back, clamped."""
    parts = [model.decode(model.encode(part).latent_dist.mean).sample for part in images.split(64)]
    return torch.cat(parts).clamp(-1, 1)


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, for values in [-1, 1]: (B, 3, H, W) twice -> (B,)."""
    return 10 * torch.log10(4 / (images - others).square().mean((1, 2, 3)).clamp_min(1e-10))


def measure_autoencoder(
    folder: Path, config: AutoencoderRecipe, draw: Draw = CropPool.draw
) -> dict[str, float]:
    """Reconstruction by the saved weights, in float32, on pictures that the training has not seen."""
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval()
    stats = {"scaling_factor": float(model.config.scaling_factor)}
    for split in ("train", "val"):
        images = draw(split, config.validation_per_subject, config.seed + 1).images(slice(None))
        stats[f"{split}_psnr"] = psnr(images, reconstruct(model, images)).mean().item()
    return stats
