"""SD-VAE: the posterior of seeded noise, and what it keeps of pictures."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from pipelines.real.check import Check, Measured, Picture
from pipelines.real.material import Material, numbers
from pipelines.real.settings import Settings
from pipelines.real.stated import STATED
from pipelines.reports.pictures import Row, grid
from reptok.autoencoder import Autoencoder
from reptok.configs import AutoencoderConfig
from reptok.data.transforms import to_uint8
from reptok.metrics.reconstruction import psnr, ssim

DEVIATIONS = 4
"""A sample of the posterior lies that many of its deviations from the mean at most."""


def checks(settings: Settings) -> list[Check]:
    """Both halves of the VAE: the encoder's moments, and whole reconstructions."""
    return [
        Check(
            what="SD-VAE ft-MSE, by diffusers",
            place=settings.vae,
            load=lambda material: autoencoder(settings).to(material.device),
            rows={"vae_encoder": posterior, "vae": reconstruction},
        )
    ]


def autoencoder(settings: Settings) -> Autoencoder:
    """Load the VAE by our own loader."""
    return Autoencoder(AutoencoderConfig(path=settings.vae)).eval()


def posterior(vae: Autoencoder, material: Material) -> Measured:
    """The mean of the noise's posterior, unscaled, where the publisher states a sample."""
    mean, logvar = vae.encode_moments(material.noise()[:1]).chunk(2, dim=1)
    place = (0, -1, slice(-3, None), slice(-3, None))
    spread = (0.5 * logvar[place]).exp()
    (own,) = STATED["vae_encoder"].tolerance
    return Measured(
        ours=numbers(mean[place]),
        tolerance=tuple(own + DEVIATIONS * deviation for deviation in numbers(spread)),
        note=f"deviations of the posterior there: up to {float(spread.max()):.2g}",
    )


def reconstruction(vae: Autoencoder, material: Material) -> Measured:
    """PSNR and SSIM of the publishers' picture; the pictures that are at hand beside it."""
    side = material.settings.image_size
    images = [material.fitted(picture, side) for picture in [material.cats, *material.shipped]]
    again = [vae.decode(vae.encode(image)) for image in images]
    found = [float(psnr(a, b)) for a, b in zip(again, images, strict=True)]
    note = f"PSNR of {len(found) - 1} pictures of scikit-image: {np.mean(found[1:]):.2f} dB"
    shown = show(
        material, "vae",
        {"original": torch.cat(images), "VAE": torch.cat(again)},
        [f"{value:.1f} dB" for value in found],
    )  # fmt: skip
    return Measured(
        ours=(found[0], float(ssim(again[0], images[0]))), note=note,
        pictures=(Picture(file=shown, caption="Pictures, and what the VAE alone keeps of them."),),
    )  # fmt: skip


def show(
    material: Material, name: str, columns: dict[str, torch.Tensor], labels: list[str] | None = None
) -> str:
    """Write images (B, 3, S, S) in [-1, 1] side by side, a line for each; returns the file's name."""
    pixels = {title: to_uint8(images) for title, images in columns.items()}
    count = len(next(iter(pixels.values())))
    rows = [
        Row(
            images=[Image.fromarray(column[i]) for column in pixels.values()],
            label=labels[i] if labels else "",
        )
        for i in range(count)
    ]
    sheet = grid(rows, [(title, 1) for title in pixels], tile=min(256, material.settings.image_size * 2))
    file = f"pictures/{name}.webp"
    (material.out / file).parent.mkdir(parents=True, exist_ok=True)
    sheet.save(material.out / file, "WEBP", quality=92)
    return file
