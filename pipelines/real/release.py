"""The authors' release: imported, pictures through its one token and back, and samples of its generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipelines.real.autoencoder import show
from pipelines.real.check import Check, Measured, Picture, Skipped
from pipelines.real.material import Material
from pipelines.real.settings import Settings
from reptok.metrics.reconstruction import psnr
from reptok.pipeline import RepTokPipeline
from reptok.pretrained import load_pretrained
from reptok.reference_weights import import_release

CLASSES = (207, 360, 387, 974, 88, 979, 417, 279)
"""Of ImageNet: golden retriever, otter, lesser panda, geyser, macaw, valley, balloon, arctic fox."""
TEXTS = ("a photo of a cat", "a photo of a dog", "a red cup", "a mountain")
STEPS = 50


def checks(settings: Settings) -> list[Check]:
    """The one checkpoint that was released."""
    return [
        Check(
            what="the authors' release",
            place=settings.release or "none given",
            load=lambda material: load(settings, material),
            rows={"release": look},
        )
    ]


def load(settings: Settings, material: Material) -> RepTokPipeline:
    """Import the checkpoint, once; its folder lies among the results.

    Raises:
        Skipped: None was given.
    """
    if not settings.release:
        raise Skipped("release=FILE names the checkpoint, which its licence (non-commercial) lets you fetch")
    place = Path(settings.release).expanduser()
    if not place.is_dir():
        folder = material.out / "release"
        import_release(place, folder)
        place = folder
    return load_pretrained(place).to(material.device).eval()


@torch.no_grad()
def look(pipe: RepTokPipeline, material: Material) -> Measured:
    """Reconstruct every picture that is at hand, and sample the generator if there is one."""
    tokenizer = pipe.tokenizer
    try:
        pictures = [material.cats, *material.shipped]
    except OSError:
        pictures = material.shipped
    images = torch.cat([material.fitted(picture, tokenizer.image_size) for picture in pictures])
    again = tokenizer.reconstruct(images, num_steps=STEPS, seed=list(range(len(images))))
    found = psnr(again, images)
    file = show(
        material, "release", {"original": images, "one token": again}, [f"{v:.1f} dB" for v in found.tolist()]
    )
    seen = [Picture(file=file, caption="Pictures, and what one token of the release keeps of them.")]
    if pipe.generator is not None:
        seen.append(generate(pipe, material))
    return Measured(
        ours=(float(found.mean()),), pictures=tuple(seen), note=f"over {len(images)} pictures; {STEPS} steps"
    )


def generate(pipe: RepTokPipeline, material: Material) -> Picture:
    """Samples of the generator, by class, text or neither."""
    assert pipe.generator is not None
    config, seeds = pipe.generator.config, list(range(len(CLASSES)))
    asked: dict[str, object] = {"num_images": len(CLASSES)}
    if config.condition == "class":
        asked = {"labels": [number % config.num_classes for number in CLASSES]}
    elif config.condition == "text":
        asked, seeds = {"prompt": list(TEXTS)}, seeds[: len(TEXTS)]
    sampled = pipe(**asked, seed=seeds, cfg_scale=1.5, num_steps=STEPS, decoder_steps=STEPS)  # type: ignore[arg-type]
    told: Sequence[object] = {"class": CLASSES, "text": TEXTS}.get(config.condition, seeds)
    images = [material.fitted(np.asarray(image), image.width) for image in sampled]
    file = show(material, "samples", {str(word): image for word, image in zip(told, images, strict=True)})
    return Picture(file=file, caption=f"Samples of its generator, guidance 1.5; by {config.condition}.")
