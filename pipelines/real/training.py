"""Some steps of the tokenizer's training on the real encoder and VAE, by the product's own trainer.

Crops of a few pictures are written as the stages write them, in one shard a split, and encoded by the
stage's own op; what trains is `reptok.training`, in this process. Nothing is learned of images in so few
steps, but the loss must fall, and the images a second are those of this machine.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipelines.encoding.device import ComputeConfig
from pipelines.encoding.latents import EncodeLatents
from pipelines.real.check import Check, Measured, Picture
from pipelines.real.encoders import encoder_config
from pipelines.real.material import Material
from pipelines.real.settings import Settings
from pipelines.reports.pictures import Row, curves, grid
from reptok.configs import AutoencoderConfig, DecoderConfig, RepTokConfig
from reptok.data.blocks import BlockWriter
from reptok.data.images import centre_crop, decode_image, encode_jpeg
from reptok.data.shards import Sample, write_samples
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.launch import in_process
from reptok.training.log import FolderLog
from reptok.training.preview import Grid
from reptok.training.tokenizer import TokenizerTraining

CROPS: Mapping[str, int] = {"train": 256, "val": 8}
SMALLEST_SHARE = 0.4
"""Of the picture's shorter side, for a crop's."""
LOGGED = 20
"""Entries of the curve."""


def checks(settings: Settings) -> list[Check]:
    """The training, whose networks its data is encoded with."""
    return [
        Check(
            what=f"training: {settings.steps} steps of {settings.batch_size} images",
            place=f"{settings.dinov2}, {settings.vae}",
            load=prepare,
            rows={"training": train},
        )
    ]


class Curve(FolderLog):
    """Keeps the losses and the last preview, beside the files that the plain log writes."""

    def __init__(self, folder: Path):
        super().__init__(folder, echo=True)
        self.losses: list[tuple[int, float]] = []
        self.latest: dict[str, float] = {}
        self.preview: Grid | None = None

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        super().metrics(values, step)
        self.latest.update(values)
        if "train/loss" in values:
            self.losses.append((step, values["train/loss"]))

    def grid(self, grid: Grid, step: int) -> None:
        super().grid(grid, step)
        self.preview = grid


def prepare(material: Material) -> TokenizerTraining:
    """Write and encode the crops, and describe the training."""
    settings, folder = material.settings, material.out / "training"
    shutil.rmtree(folder, ignore_errors=True)
    cuda = material.device.type == "cuda"
    encoder = encoder_config(settings.dinov2, settings.encoder_size)
    vae = AutoencoderConfig(path=settings.vae)
    op = EncodeLatents(
        vae, replace(encoder, trainable="nothing"),
        ComputeConfig(device=material.device.type, precision="bfloat16" if cuda else "float32", batch_size=8),
    )  # fmt: skip
    op.setup()
    write_crops(material.shipped, folder, settings.image_size, op)
    decoder = DecoderConfig(
        width=settings.decoder_width, depth=settings.decoder_depth, heads=settings.decoder_heads,
        latent_channels=op.autoencoder.channels, token_dim=op.ssl.dim,
        latent_size=settings.image_size // op.autoencoder.downsample,
    )  # fmt: skip
    every = max(1, settings.steps // LOGGED)
    optim = OptimConfig(lr=settings.lr, warmup_steps=every)
    config = TrainConfig(
        steps=settings.steps, batch_size=settings.batch_size, optim=optim, ema_decay=0.98, log_every=every,
        time_sampling="logit_normal", precision="bfloat16" if cuda else "float32", launcher="process",
        eval_every=0, eval_samples=CROPS["val"], gpus_per_worker=1 if cuda else 0, threads=2,
    )  # fmt: skip
    return TokenizerTraining(
        train=config,
        tokenizer=RepTokConfig(encoder=encoder, decoder=decoder, autoencoder=vae),
        dataset=folder / "dataset",
        latents=folder / "latents",
    )


def write_crops(pictures: list[np.ndarray], folder: Path, size: int, op: EncodeLatents) -> None:
    """Write `dataset` and `latents`, one shard a split, of seeded crops of the pictures.

    Args:
        pictures: uint8 (H, W, 3), of any sizes.
        folder: Where to.
        size: Side of the crops in pixels.
        op: Encodes them.
    """
    (folder / "dataset").mkdir(parents=True)
    (folder / "latents").mkdir()
    splits = {}
    random = np.random.default_rng(0)
    for split, count in CROPS.items():
        name = f"{split}-00000"
        samples = []
        for number in range(count):
            jpg = encode_jpeg(crop(pictures[number % len(pictures)], size, random))
            samples.append(Sample(f"{split}{number:06d}", jpg, "", {"width": size, "height": size}))
        with (folder / f"dataset/{name}.tar").open("wb") as file:
            write_samples(file, samples)
        with (folder / f"latents/{name}.tar").open("wb") as file:
            blocks = BlockWriter(file)
            for start in range(0, count, op.compute.batch_size):
                some = samples[start : start + op.compute.batch_size]
                batch = op({"image": np.stack([decode_image(sample.jpg) for sample in some])})
                blocks.add([sample.key for sample in some], {column: batch[column] for column in op.writes})
            blocks.close()
        splits[split] = [{"shard": name, "rows": count, "bytes": 0, "sha256": ""}]
    index = {"schema_version": 1, "splits": splits, "class_names": None, "image_size": size}
    (folder / "dataset/index.json").write_text(json.dumps(index))
    spec = replace(op.autoencoder.spec, image_size=size)
    (folder / "latents/latent_spec.json").write_text(json.dumps(asdict(spec)))


def crop(picture: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """A random square of a picture, uint8 (size, size, 3)."""
    height, width = picture.shape[:2]
    side = int(min(height, width) * random.uniform(SMALLEST_SHARE, 1))
    top, left = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
    return centre_crop(picture[top : top + side, left : left + side], size)


def train(training: TokenizerTraining, material: Material) -> Measured:
    """Train, and say by how much the loss fell and how fast it went."""
    folder = material.out / "training"
    torch.backends.cudnn.deterministic = False  # encoding was to be repeatable; this is to be fast
    log = Curve(folder)
    if not in_process(training, folder, log):
        raise RuntimeError("the training stopped before its end")
    steps, losses = zip(*log.losses, strict=True)
    speed = [log.latest[name] for name in ("speed/images_per_second", "speed/peak_memory_gib")]
    note = f"loss {losses[0]:.4g} to {losses[-1]:.4g}; {speed[0]:.4g} images/s, {speed[1]:.3g} GiB"
    return Measured(
        ours=(losses[-1] / losses[0],), note=note,
        pictures=tuple(draw(material, log, list(steps), list(losses))),
    )  # fmt: skip


def draw(material: Material, log: Curve, steps: list[float], losses: list[float]) -> list[Picture]:
    """The curve, and what the training drew of its validation crops at its end."""
    found = {"pictures/loss.webp": curves({"train/loss": (steps, losses)}, "step", "loss")}
    seen = [Picture(file="pictures/loss.webp", caption="The training's loss.")]
    if log.preview is not None:
        rows = [Row(images=[Image.fromarray(tile) for tile in tiles]) for _, tiles in log.preview.rows]
        found["pictures/training.webp"] = grid(rows, [(title, 1) for title in log.preview.columns])
        seen.append(
            Picture(file="pictures/training.webp", caption="Validation crops after the training's last step.")
        )
    for file, sheet in found.items():
        (material.out / file).parent.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        sheet.save(buffer, "WEBP", lossless=True)
        (material.out / file).write_bytes(buffer.getvalue())
    return seen
