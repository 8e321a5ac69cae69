"""Recipe of the zoo's encoder: a tiny ViT with registers, self-distilled (DINO).

The student sees a random half of each view's patches, which halves its cost and makes it look at all of them.
Views keep most of a crop and most of its colour: RepTok later tunes the class token to carry an image's
layout, so the patches must not learn to forget it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.dag.fingerprint import insignificant
from pipelines.demo.subjects import SUBJECTS
from pipelines.zoo.crops import CropPool
from pipelines.zoo.loop import Log, ema_update, threads, train_loop
from reptok.encoder.preprocess import Preprocess
from reptok.encoder.vit import Architecture, load_vit, save_vit
from reptok.metrics.knn import knn_accuracy


@dataclass(frozen=True, kw_only=True)
class EncoderRecipe:
    """Everything that determines the encoder's weights.

    Attributes:
        crop_size: side of the training crops in memory, from which views of `image_size` are cut.
        smallest_view: smallest side of a view, as a share of the crop's side.
        colour_jitter: largest relative change of brightness, contrast and saturation.
        kept_share: share of a view's patches that the student sees.
        another_crop: how often the second view comes from another crop of the same photograph.
        prototypes: width of the head's output.
        momentum: the teacher's decay at the start; it rises to 1.
        spread_weight: weight of the KoLeo term, which keeps class tokens apart (as in DINOv2).
        bank_per_subject, queries_per_subject: crops for the k-nearest-neighbour figures.
    """

    seed: int = 0
    image_size: int = 64
    patch_size: int = 8
    width: int = 192
    depth: int = 5
    heads: int = 4
    registers: int = 4
    crop_size: int = 96
    crops_per_subject: int = 800
    smallest_view: float = 0.6
    colour_jitter: float = 0.2
    kept_share: float = 0.5
    another_crop: float = 0.5
    prototypes: int = 256
    steps: int = 700
    batch_size: int = 24
    learning_rate: float = 6e-4
    warmup_steps: int = 100
    weight_decay: float = 0.04
    clip_norm: float = 3.0
    momentum: float = 0.98
    teacher_temperature: float = 0.05
    centre_momentum: float = 0.7
    spread_weight: float = 0.1
    bank_per_subject: int = 60
    queries_per_subject: int = 30
    threads: int = 1
    log_every: int = insignificant(10)
    checkpoint_seconds: float = insignificant(60.0)


def architecture(config: EncoderRecipe) -> Architecture:
    """What timm builds: class token, registers and patches; LayerScale; positions on the patches alone."""
    return Architecture(
        name="vit_small_patch16_224",
        model_args={
            "img_size": config.image_size,
            "patch_size": config.patch_size,
            "embed_dim": config.width,
            "depth": config.depth,
            "num_heads": config.heads,
            "reg_tokens": config.registers,
            "no_embed_class": True,
            "init_values": 0.1,
            "global_pool": "token",
        },
    )


class Distilled(nn.Module):
    """A ViT with the head that turns its class token into prototype logits."""

    def __init__(self, config: EncoderRecipe) -> None:
        super().__init__()
        self.vit = architecture(config).build()
        self.preprocess = Preprocess(config.image_size)
        from lightly.models.modules import DINOProjectionHead

        self.head = DINOProjectionHead(config.width, 2 * config.width, 64, config.prototypes)

    def forward(self, views: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Views (B, 3, H, W) in [-1, 1], patches to see (B, L') -> tokens (B, D), logits (B, K)."""
        vit = self.vit
        tokens = vit._pos_embed(vit.patch_embed(self.preprocess(views)))  # (B, 1 + registers + L, D)
        if kept is not None:
            first = vit.num_prefix_tokens
            patches = tokens[:, first:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :first], patches], dim=1)
        token = vit.norm(vit.blocks(tokens))[:, 0]
        return token, self.head(token)


def another_crop(chosen: Tensor, size: int, config: EncoderRecipe, generator: torch.Generator) -> Tensor:
    """Replace some of the chosen rows (B,) of a pool by rows that show the same photograph."""
    step = torch.randint(size // len(SUBJECTS), chosen.shape, generator=generator) * len(SUBJECTS)
    replaced = torch.rand(chosen.shape, generator=generator) < config.another_crop
    return torch.where(replaced, (chosen + step) % size, chosen)


def random_views(images: Tensor, config: EncoderRecipe, generator: torch.Generator) -> Tensor:
    """A random part of each crop, mildly recoloured, half of them mirrored: (B, 3, S, S) -> (B, 3, s, s)."""
    count = len(images)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    side = uniform(config.smallest_view, 1.0)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    zero = torch.zeros(count)
    across, down = uniform(-1, 1) * (1 - side), uniform(-1, 1) * (1 - side)
    placing = torch.stack(
        [torch.stack([side * mirror, zero, across], 1), torch.stack([zero, side, down], 1)], 1
    )
    places = F.affine_grid(placing, [count, 3, config.image_size, config.image_size], align_corners=False)
    views = F.grid_sample(images, places, mode="bilinear", padding_mode="reflection", align_corners=False)
    low, high = 1 - config.colour_jitter, 1 + config.colour_jitter
    brightness, contrast, saturation = (uniform(low, high).view(-1, 1, 1, 1) for _ in range(3))
    views = (views + 1) * brightness - 1
    grey = views.mean((1, 2, 3), keepdim=True)
    views = (views - grey) * contrast + grey
    grey = views.mean(1, keepdim=True)
    return ((views - grey) * saturation + grey).clamp(-1, 1)


def random_patches(count: int, config: EncoderRecipe, generator: torch.Generator) -> Tensor:
    """Which patches the student sees, the same number in every view: int64 (count, L')."""
    patches = (config.image_size // config.patch_size) ** 2
    order = torch.rand(count, patches, generator=generator).argsort(1)
    return order[:, : round(config.kept_share * patches)]


def train_encoder(config: EncoderRecipe, folder: Path, scratch: Path, log: Log) -> dict[str, float]:
    """Train, save the teacher as a timm hub folder (float16) and measure what was saved.

    Args:
        config: the recipe.
        folder: receives `config.json` and `model.safetensors`.
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).

    Returns:
        k-nearest-neighbour subject accuracy on validation crops of the saved class token, beside the same
        network untrained and beside colour statistics, without and with a histogram.
    """
    with threads(config.threads):
        torch.manual_seed(config.seed)
        student = Distilled(config)
        teacher = Distilled(config).requires_grad_(False)
        teacher.load_state_dict(student.state_dict())
        pool = CropPool.draw("train", config.crops_per_subject, config.seed, config.crop_size)
        from lightly.loss import DINOLoss, KoLeoLoss

        token_loss = DINOLoss(
            config.prototypes, teacher_temp=config.teacher_temperature, center_momentum=config.centre_momentum
        )
        spread_loss = KoLeoLoss()
        optimizer = torch.optim.AdamW(parameter_groups(student, config.weight_decay), config.learning_rate)

        def step(index: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            first = torch.randint(len(pool), (config.batch_size,), generator=generator)
            second = another_crop(first, len(pool), config, generator)
            views = [random_views(pool.images(chosen), config, generator) for chosen in (first, second)]
            with torch.no_grad():
                _, target = teacher(torch.cat(views))
            tokens, logits = student(torch.cat(views), random_patches(2 * len(first), config, generator))
            distillation = token_loss(list(target.chunk(2)), list(logits.chunk(2)))
            spread = sum(spread_loss(part) for part in tokens.chunk(2))
            figures = {"distillation": distillation.detach(), "spread": spread.detach()}
            return distillation + config.spread_weight * spread, figures

        def after_step(index: int) -> None:
            rest = 1 - config.momentum
            ema_update(teacher, student, 1 - rest * 0.5 * (1 + math.cos(math.pi * index / config.steps)))

        train_loop(
            "encoder",
            {"student": student, "teacher": teacher, "centre": token_loss},
            optimizer,
            step,
            after_step=after_step,
            steps=config.steps,
            warmup_steps=config.warmup_steps,
            clip_norm=config.clip_norm,
            seed=config.seed,
            scratch=scratch,
            log=log,
            log_every=config.log_every,
            checkpoint_seconds=config.checkpoint_seconds,
        )
        save_vit(teacher.vit.half().float(), architecture(config), folder)
        stats = measure_encoder(folder, config)
    log({f"val/{key}": value for key, value in stats.items()}, config.steps)
    return stats


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only."""
    named = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in named if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def class_tokens(model: nn.Module, images: Tensor) -> Tensor:
    """Final class tokens (B, D) of images (B, 3, H, W) in [-1, 1]."""
    preprocess = Preprocess(images.shape[-1])
    return torch.cat([model(preprocess(part)) for part in images.split(64)])


def colour_statistics(images: Tensor) -> Tensor:
    """Mean and deviation of each channel: (B, 3, H, W) -> (B, 6)."""
    return torch.cat([images.mean((2, 3)), images.std((2, 3))], 1)


def colour_histogram(images: Tensor) -> Tensor:
    """Share of each channel's values in 8 equal bins of [-1, 1]: (B, 3, H, W) -> (B, 24)."""
    bins = ((images + 1) * 4).clamp(0, 7.99).long()
    return F.one_hot(bins.flatten(2), 8).float().mean(2).flatten(1)


def measure_encoder(folder: Path, config: EncoderRecipe, k: int = 20) -> dict[str, float]:
    """Subject accuracy of k nearest neighbours: a bank of training crops, queries of validation crops.

    Colours are brought to mean 0 and deviation 1 over the bank first: their raw cosines would tell little.
    """
    bank = CropPool.draw("train", config.bank_per_subject, config.seed + 1)
    queries = CropPool.draw("val", config.queries_per_subject, config.seed + 1)
    images, asked = bank.images(slice(None)), queries.images(slice(None))

    def accuracy(feature: Callable[[Tensor], Tensor], standardised: bool) -> float:
        known, new = feature(images), feature(asked)
        if standardised:
            mean, std = known.mean(0), known.std(0) + 1e-6
            known, new = (known - mean) / std, (new - mean) / std
        return knn_accuracy(known, bank.labels, new, queries.labels, k)

    trained = load_vit(folder, config.image_size)[0].eval()
    torch.manual_seed(config.seed)
    untrained = architecture(config).build().eval()
    return {
        "knn": accuracy(lambda x: class_tokens(trained, x), False),
        "knn_untrained": accuracy(lambda x: class_tokens(untrained, x), False),
        "knn_colours": accuracy(colour_statistics, True),
        "knn_colours_and_histogram": accuracy(
            lambda x: torch.cat([colour_statistics(x), colour_histogram(x)], 1), True
        ),
    }
