"""The tokenizer's training: images, cached moments and frozen tokens in, a tokenizer out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from reptok import flops
from reptok.autoencoder import LatentSpec
from reptok.configs import RepTokConfig
from reptok.data.loader import TokenizerData, split_sizes
from reptok.data.remote import Located, keeping
from reptok.data.transforms import to_bytes, to_float
from reptok.metrics.reconstruction import psnr
from reptok.pretrained import save_tokenizer
from reptok.tokenizer import RepTok
from reptok.training.objectives import TokenizerObjective
from reptok.training.preview import Preview
from reptok.training.scores import Scores, online_name, spread
from reptok.training.start import record, start_from, start_tokenizer
from reptok.training.task import Task, Training

GRID_IMAGES, GRID_STEPS = 8, 20


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining(Training):
    """Train a tokenizer (paper, section 3.2).

    Attributes:
        tokenizer: Its networks.
        dataset: Folder of the images.
        latents: Folder of their latents and frozen tokens, aligned with `dataset`.
        preservation_weight: lambda of the cosine loss.
        draws: Noises and times that an encoded image is decoded from in a step.
        decoder_first_steps: Length of the first phase, in which the decoder learns alone.
    """

    tokenizer: RepTokConfig
    dataset: Located
    latents: Located
    preservation_weight: float = 0.1
    draws: int = 1
    decoder_first_steps: int = 0

    def build(self, device: torch.device) -> Task:
        """Load the data and a fresh tokenizer.

        Raises:
            ValueError: The latents are of another dataset, or another VAE's.
        """
        config, keep = self.train, self.train.cache_disk_bytes
        folders = (keeping(self.dataset, keep), keeping(self.latents, keep))
        tokenizer = RepTok(self.tokenizer).to(device)
        spec = json.loads((folders[1] / "latent_spec.json").read_text())
        LatentSpec(**spec).check(tokenizer.autoencoder.spec)
        start = start_from(self.init, "tokenizer", partial(start_tokenizer, tokenizer))
        validation = TokenizerData(*folders, "val") if split_sizes(folders[0]).get("val") else None
        objective = TokenizerObjective(
            tokenizer, self.preservation_weight, config.time_sampling, draws=self.draws,
            decoder_first_steps=self.decoder_first_steps, time_loc=config.time_loc,
            time_scale=config.time_scale,
        )  # fmt: skip
        whole = flops.tokenizer_training(self.tokenizer, draws=self.draws)
        decoder = self.draws * flops.decoder_training(self.tokenizer.decoder)

        def preview(step: int) -> Preview | None:
            return None if validation is None else reconstructions(validation)

        def save(trained: TokenizerObjective, folder: Path) -> None:
            save_tokenizer(trained.tokenizer, folder)
            record(start, folder)

        return Task(
            objective=objective,
            prepare=objective.prepared,
            data=TokenizerData(*folders, "train", config.cache_images_bytes),
            validation=validation,
            save=save,
            weights=lambda trained: trained.tokenizer.trainable_state_dict(),
            preview=preview,
            scores=partial(fidelity, validation) if validation else None,
            columns=objective.columns,
            notes=[f"tokenizer from {self.init}: {start}"] if start else [],
            flops_per_image=lambda step: decoder if step <= self.decoder_first_steps else whole,
        )


def reconstructions(data: TokenizerData) -> Preview:
    """Reconstruct images spread over a split: original, VAE and RepTok side by side."""
    total = sum(data.rows)
    samples = spread(total, GRID_IMAGES)

    def draw(objective: TokenizerObjective, lines: np.ndarray) -> torch.Tensor:
        tokenizer = objective.tokenizer
        batch = data.read(samples[lines], np.zeros(len(lines), bool))
        assert batch.images is not None  # only the decoder's own phase leaves them out
        images = to_float(batch.images.to(tokenizer.device))
        moments = batch.moments.to(tokenizer.device).float()
        latents = tokenizer.autoencoder.latents_from_moments(moments)
        seeds = [int(line) for line in lines]
        columns = [
            images,
            tokenizer.autoencoder.decode(latents),
            tokenizer.reconstruct(images, num_steps=GRID_STEPS, seed=seeds),
        ]
        return torch.stack([to_bytes(column) for column in columns], 1)

    return Preview(
        name="reconstructions", columns=["original", "VAE", "RepTok"], labels=[""] * len(samples), draw=draw
    )


def fidelity(data: TokenizerData, wanted: int) -> Scores:
    """PSNR in dB of reconstructions of images spread over a split."""
    samples = spread(sum(data.rows), wanted)

    def look(objective: TokenizerObjective, chosen: np.ndarray) -> torch.Tensor:
        tokenizer = objective.tokenizer
        batch = data.read(chosen, np.zeros(len(chosen), bool))
        assert batch.images is not None
        images = to_float(batch.images.to(tokenizer.device))
        made = tokenizer.reconstruct(images, num_steps=GRID_STEPS, seed=[int(sample) for sample in chosen])
        return psnr(made, images)[:, None]

    name = online_name("psnr", len(samples))
    return Scores(samples=samples, look=look, total=lambda values: {name: values.mean().item()})
