"""What the page does with a model, free of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from reptok.data.transforms import load_image
from reptok.encoder.preservation import preservation_loss
from reptok.image_tokenizer import ImageTokenizer
from reptok.pipeline import RepTokPipeline, to_pictures
from reptok.tokenizer import RepTok


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """A picture, and what is left of it.

    Attributes:
        original: The picture, cropped to the model's square.
        autoencoder: What the VAE alone keeps of it.
        tokenizer: What its token keeps.
        cosine: Of the token to the frozen encoder's, in [-1, 1]; None where no encoder makes the token.
    """

    original: Image
    autoencoder: Image
    tokenizer: Image
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How strongly a generator follows what it is told.

    Attributes:
        scale: 1 is off.
        interval: Times at which it acts, from 0, noise, to 1, data.
    """

    scale: float = 1.5
    interval: tuple[float, float] = (0.3, 0.9)

    def __post_init__(self) -> None:
        start, end = self.interval
        if start > end:
            raise ValueError(f"guidance acts from {start:g} to {end:g}: make the first the smaller one")


def read_picture(tokenizer: ImageTokenizer, file: str | Path | None) -> Tensor:
    """Read a picture file as (3, S, S) in [-1, 1], the central square of it, on the model's device.

    Raises:
        ValueError: There is no file, or it is no picture.
    """
    if file is None:
        raise ValueError("there is no picture yet: choose a file, or drop one into the field")
    return load_image(Path(file).read_bytes(), tokenizer.image_size).to(tokenizer.device)


def reconstruct(tokenizer: ImageTokenizer, image: Tensor, *, num_steps: int, seed: int) -> Reconstruction:
    """Send an image (3, S, S) in [-1, 1] through the VAE, and through its token."""
    images = image[None]
    kept = tokenizer.autoencoder.decode(tokenizer.autoencoder.encode(images))
    again = tokenizer.reconstruct(images, num_steps=num_steps, seed=seed)
    original, autoencoder, decoded = to_pictures(torch.cat([images, kept, again]))
    cosine = None
    if isinstance(tokenizer, RepTok):
        with torch.no_grad():
            cosine = 1 - preservation_loss(*tokenizer.adapted(images)).item()
    return Reconstruction(original=original, autoencoder=autoencoder, tokenizer=decoded, cosine=cosine)


def between_images(
    tokenizer: ImageTokenizer, first: Tensor, second: Tensor, weight: float, *, num_steps: int, seed: int
) -> list[Image]:
    """Both ends of the way between two images (3, S, S) in [-1, 1], and in the middle the place `weight`."""
    return _between(tokenizer, tokenizer.tokenize(torch.stack([first, second])), weight, num_steps, seed)


def between_conditions(
    pipe: RepTokPipeline,
    wanted: Sequence[str] | Sequence[int],
    weight: float,
    *,
    guidance: Guidance,
    num_steps: int,
    decoder_steps: int,
    seed: int,
) -> list[Image]:
    """The same between two prompts or classes, whose tokens are drawn from one noise.

    Raises:
        ValueError: The model cannot be told that.
    """
    condition = pipe.condition(wanted)
    assert pipe.generator is not None  # else it has no condition
    tokens = pipe.generator.sample(
        condition, seeds=[seed] * len(condition), num_steps=num_steps, cfg_scale=guidance.scale,
        guidance_interval=guidance.interval,
    )  # fmt: skip
    return _between(pipe.tokenizer, tokens, weight, decoder_steps, seed)


def _between(
    tokenizer: ImageTokenizer, ends: Tensor, weight: float, num_steps: int, seed: int
) -> list[Image]:
    start, end = ends
    return to_pictures(tokenizer.interpolate(start, end, (0, weight, 1), num_steps=num_steps, seed=seed))
