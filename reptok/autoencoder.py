"""The frozen VAE between images and latents; which alone knows their scale and shift (section 3.2)."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reptok.configs import AutoencoderConfig
from reptok.folder import check_folder, check_sizes, loading, local_folder, weight_shapes
from reptok.weights import check_finite, read_json, save_weights, write_json

CLASS = "AutoencoderKL"
LOGVAR_RANGE = (-30.0, 20.0)
SD_VAE = {  # stabilityai/sd-vae-ft-mse
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "act_fn": "silu",
    "sample_size": 256,
}


@dataclass(frozen=True, kw_only=True)
class LatentSpec:
    """What a stored latent means. Travels with latents and with every model trained on them.

    Attributes:
        vae: A name for people; the digest decides.
        vae_digest: SHA-256 of the VAE's weights.
        scale: Latents are (mean - shift) * scale.
        shift: See there.
        channels: Of a latent.
        downsample: Image pixels per side of a latent's pixel.
        image_size: Pixels per side of the images, 0 for any.
        dtype: The moments are stored in it.
        crop: The square of an image that was encoded.
        flip: Whether the moments of the mirror image lie beside the image's.
    """

    vae: str
    vae_digest: str
    scale: float
    shift: float
    channels: int
    downsample: int
    image_size: int = 0
    dtype: str = "float16"
    crop: str = "center"
    flip: bool = True

    def check(self, other: LatentSpec) -> None:
        """Refuse to mix latents of two kinds.

        Raises:
            ValueError: Names each difference and what to rerun.
        """
        differences = [
            f"{f.name} {getattr(self, f.name)!r} is not {getattr(other, f.name)!r}"
            for f in fields(self)
            if f.name != "vae"
            and getattr(self, f.name) != getattr(other, f.name)
            and not (f.name == "image_size" and 0 in (self.image_size, other.image_size))
        ]
        if differences:
            raise ValueError(
                f"the latents of {self.vae} do not fit those of {other.vae}: {'; '.join(differences)}. "
                "Rerun encode_latents and train_tokenizer with one VAE, or point both configurations at it."
            )


class Autoencoder(nn.Module):
    """Frozen AutoencoderKL: images (B, 3, H, W) in [-1, 1] to scaled latents (B, C, H/f, W/f) and back."""

    def __init__(self, config: AutoencoderConfig, vae: nn.Module | None = None) -> None:
        """Load the VAE that ``config`` names, or wrap a given one.

        Raises:
            OSError: Neither a local folder nor a reachable hub id.
            ValueError: It is a VAE of another class, or its files do not fit together.
        """
        super().__init__()
        frozen: Any = vae if vae is not None else _load(config.path)
        self.scale: float = frozen.config.scaling_factor if config.scale is None else config.scale
        self.shift: float = (frozen.config.shift_factor or 0.0) if config.shift is None else config.shift
        numbers = all(
            type(value) in (int, float) and math.isfinite(value) for value in (self.scale, self.shift)
        )
        if not numbers or self.scale <= 0:
            raise ValueError(
                f"the VAE's scaling_factor {self.scale!r} and shift_factor {self.shift!r} must be numbers, "
                "the first above 0; set autoencoder.scale and autoencoder.shift"
            )
        self.config = replace(config, scale=self.scale, shift=self.shift)
        self.vae = frozen.float().eval().requires_grad_(False)
        self.channels: int = frozen.config.latent_channels
        self.downsample: int = 2 ** (len(frozen.config.block_out_channels) - 1)

    def train(self, mode: bool = True) -> Autoencoder:
        """Stays in evaluation mode: the VAE is frozen."""
        return super().train(False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the float32 weights, independent of the file they came from."""
        sha = hashlib.sha256()
        for key, value in sorted(self.vae.state_dict().items()):
            sha.update(key.encode())
            sha.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    @property
    def spec(self) -> LatentSpec:
        """What this VAE's latents mean."""
        return LatentSpec(
            vae=Path(self.config.path).name,
            vae_digest=self.digest,
            scale=self.scale,
            shift=self.shift,
            channels=self.channels,
            downsample=self.downsample,
        )

    @torch.no_grad()
    def encode_moments(self, images: Tensor) -> Tensor:
        """Posterior moments concat(mean, logvar) (B, 2C, h, w), unscaled, of images in [-1, 1]."""
        if images.shape[-1] % self.downsample or images.shape[-2] % self.downsample:
            raise ValueError(f"image sides {tuple(images.shape[-2:])} must be multiples of {self.downsample}")
        moments: Tensor = self.vae.encode(images).latent_dist.parameters
        return moments

    def latents_from_moments(self, moments: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents (B, C, h, w): the posterior's mean, or a sample with standard normal ``noise``."""
        mean, logvar = moments.chunk(2, dim=1)
        if noise is not None:
            mean = mean + (0.5 * logvar.clamp(*LOGVAR_RANGE)).exp() * noise
        return (mean - self.shift) * self.scale

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images in [-1, 1] to scaled latents (B, C, h, w); see :meth:`latents_from_moments`."""
        return self.latents_from_moments(self.encode_moments(images), noise)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to images (B, 3, H, W) around [-1, 1], not clamped."""
        images: Tensor = self.vae.decode(latents / self.scale + self.shift).sample
        return images

    def save(self, folder: Path) -> None:
        """Write a diffusers folder; the file is half as large when float16 holds the weights exactly.

        The same VAE gives the same bytes wherever it was read from.
        """
        config = json.loads(self.vae.to_json_string())
        config.pop("_name_or_path", None)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)
        save_weights(self.vae.state_dict(), folder / "diffusion_pytorch_model.safetensors")


def build_vae(config: dict[str, Any] | None = None) -> nn.Module:
    """A randomly initialised AutoencoderKL from a diffusers configuration (default: SD-VAE's)."""
    from diffusers import AutoencoderKL

    vae: nn.Module = AutoencoderKL.from_config(config or SD_VAE)
    return vae


def _load(path: str) -> nn.Module:
    from diffusers import AutoencoderKL

    folder = local_folder(path)
    check_folder(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no VAE: config.json is missing")
    config = read_json(folder / "config.json")
    if config.get("_class_name") != CLASS:
        raise ValueError(
            f"{folder} holds a {config.get('_class_name')!r}, and its latents are not those of an {CLASS}; "
            "choose a VAE of that class"
        )
    known = set(inspect.signature(AutoencoderKL.__init__).parameters)
    unknown = [key for key in config if key not in known and not key.startswith("_")]
    if unknown:
        raise ValueError(f"{folder}/config.json says what an {CLASS} has not: {', '.join(unknown[:5])}")
    if config.get("latents_mean") is not None or config.get("latents_std") is not None:
        raise ValueError(f"{folder} scales each channel of its latents on its own, which is not supported")
    with loading(folder), _quiet():
        with torch.device("meta"):
            skeleton: Any = AutoencoderKL.from_config(config)
        check_sizes(skeleton.state_dict(), weight_shapes(sorted(folder.glob("*.safetensors"))), folder)
        vae, found = AutoencoderKL.from_pretrained(
            str(folder), torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False,
            local_files_only=True, output_loading_info=True,
        )  # fmt: skip
    problems = [f"missing {key}" for key in found["missing_keys"]]
    problems += [f"not expected {key}" for key in found["unexpected_keys"]]
    problems += [f"of another shape {key}" for key in map(str, found["mismatched_keys"])]
    if problems:
        raise ValueError(f"the weights in {folder} do not fit its config.json: {'; '.join(problems[:8])}")
    network: nn.Module = vae
    check_finite(network.state_dict(), source=str(folder))
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warnings on what is checked here, and without its bars."""
    from diffusers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
