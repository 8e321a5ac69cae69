"""One process of the tokenizer's training: images, cached moments and frozen tokens in, a tokenizer out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.dag.stage import Artifact, Workspace
from pipelines.training.process import join, run
from pipelines.training.relay import GridRow, RelayLog
from pipelines.training.start import record, start_from
from reptok import flops
from reptok.autoencoder import LatentSpec
from reptok.configs import RepTokConfig
from reptok.data.loader import TokenizerData, split_sizes
from reptok.data.transforms import to_float, to_uint8
from reptok.pretrained import save_tokenizer
from reptok.tokenizer import RepTok
from reptok.training.config import TrainConfig
from reptok.training.objectives import TokenizerObjective
from reptok.training.start import start_tokenizer

GRID_IMAGES, GRID_STEPS = 8, 20


def train_tokenizer(settings: dict[str, Any]) -> None:
    """Train in this process; rank 0 leaves the averaged tokenizer in the workspace's scratch.

    Args:
        settings: "tokenizer" (RepTokConfig), "train" (TrainConfig), "preservation_weight", "draws",
            "decoder_first_steps", "init" (a model to start from, or ""), the artifacts
            "dataset" and "latents", the workspace "out", and "log".
    """
    config: TrainConfig = settings["train"]
    tokenizer_config: RepTokConfig = settings["tokenizer"]
    dataset: Artifact = settings["dataset"]
    latents: Artifact = settings["latents"]
    out: Workspace = settings["out"]
    log: RelayLog = settings["log"]
    member = join(config)
    tokenizer = RepTok(tokenizer_config).to(member.device)
    LatentSpec(**latents.read_json("latent_spec.json")).check(tokenizer.autoencoder.spec)
    start = start_from(settings["init"], "tokenizer", partial(start_tokenizer, tokenizer), member, log)
    folders = dataset.local_path(), latents.local_path()
    images_from = settings["decoder_first_steps"] * config.batch_size
    data = TokenizerData(*folders, "train", config.cache_images_bytes, images_from)
    validation = TokenizerData(*folders, "val") if split_sizes(folders[0]).get("val") else None

    def show(trained: TokenizerObjective, step: int) -> None:
        if validation is not None:
            columns, rows = reconstructions(trained.tokenizer, validation)
            log.grid("reconstructions", columns, rows, step)

    def save(trained: TokenizerObjective, folder: Path) -> None:
        save_tokenizer(trained.tokenizer, folder)
        record(start, folder)

    objective = TokenizerObjective(
        tokenizer, settings["preservation_weight"], config.time_sampling, draws=settings["draws"],
        time_loc=config.time_loc, time_scale=config.time_scale,
    )  # fmt: skip
    draws, alone = settings["draws"], settings["decoder_first_steps"]
    whole = flops.tokenizer_training(tokenizer_config, draws=draws)
    decoder = draws * flops.decoder_training(tokenizer_config.decoder)

    def cost(step: int) -> float:
        return decoder if step <= alone else whole

    run(member, objective, config, data, validation, out, log, save, show, cost)


@torch.no_grad()
def reconstructions(tokenizer: RepTok, data: TokenizerData) -> tuple[list[str], list[GridRow]]:
    """Reconstruct images spread over a split.

    Returns:
        Column titles, and a row of uint8 (H, W, 3) pictures per image, without a label: original, VAE,
        RepTok.
    """
    total = sum(data.rows)
    samples = np.unique(np.linspace(0, total - 1, min(GRID_IMAGES, total)).round().astype(np.int64))
    batch = data.read(samples, np.zeros(len(samples), bool))
    assert batch.images is not None  # only the training's stream leaves them out
    images = to_float(batch.images.to(tokenizer.device))
    moments = batch.moments.to(tokenizer.device).float()
    latents = tokenizer.autoencoder.latents_from_moments(moments)
    columns = [
        images,
        tokenizer.autoencoder.decode(latents),
        tokenizer.reconstruct(images, num_steps=GRID_STEPS),
    ]
    rows = zip(*(to_uint8(column) for column in columns), strict=True)
    return ["original", "VAE", "RepTok"], [("", list(row)) for row in rows]
