"""Recipe of the zoo's encoder: a tiny ViT with registers, self-distilled (DINO), which keeps what it sees.

Two crops of a photograph must find the same prototypes. These are compared with the class token itself: there
is no head between them, so that tokens which are near each other mean the same. A network that sees only
eighteen photographs learns from this alone to name the photograph and to forget the rest, which large
self-supervised networks do not: their class token still holds an image's layout. So the class token must also
predict, each through one linear layer, its whole view in small and the histogram of the view's colours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from examples.photographs.photographs import Split
from examples.zoo.crops import CropPool, Draw
from examples.zoo.linear_vit import start_linear_vit
from examples.zoo.loop import Log, StepResult, ema_update, threads, train_loop
from examples.zoo.recipes import CaptionerRecipe, EncoderPhase, EncoderRecipe
from reptok.encoder.preprocess import Preprocess
from reptok.encoder.vit import Architecture, load_vit, save_vit
from reptok.metrics.knn import knn_accuracy

LINEAR_VIEWS = 3000


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
            "init_values": config.layer_scale,
            "global_pool": "token",
        },
    )


class Distilled(nn.Module):
    """A ViT, the prototypes that its class token is compared with, and what it predicts of its view."""

    def __init__(self, config: EncoderRecipe) -> None:
        super().__init__()
        self.vit = architecture(config).build()
        nn.init.normal_(self.vit.pos_embed, std=config.position_std)
        self.preprocess = Preprocess(config.image_size)
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.width))
        self.layout = nn.Linear(config.width, 3 * config.layout_size**2)
        self.colours = nn.Linear(config.width, 24)

    def forward(self, views: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Views (B, 3, H, W) in [-1, 1], patches to see (B, L') -> tokens (B, D), cosines (B, K)."""
        vit = self.vit
        tokens = vit._pos_embed(vit.patch_embed(self.preprocess(views)))  # (B, 1 + registers + L, D)
        if kept is not None:
            first = vit.num_prefix_tokens
            patches = tokens[:, first:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :first], patches], dim=1)
        token = vit.norm(vit.blocks(tokens))[:, 0]
        return token, F.normalize(token, dim=1) @ F.normalize(self.prototypes, dim=1).T

    @torch.no_grad()
    def start_linear(self, pool: CropPool, config: EncoderRecipe) -> None:
        """Begin as a linear code of the view, and with the best linear prediction of the small picture."""
        generator = torch.Generator().manual_seed(config.seed)
        chosen = torch.randint(len(pool), (LINEAR_VIEWS,), generator=generator)
        views = random_views(pool.images(chosen), config, generator)
        start_linear_vit(self.vit, self.preprocess(views[:512]))
        tokens = torch.cat([self(part)[0] for part in views.split(256)])
        small = F.adaptive_avg_pool2d(views, config.layout_size).flatten(1)
        known = torch.cat([tokens, torch.ones(len(tokens), 1)], 1)
        solution = torch.linalg.lstsq(known, small).solution
        self.layout.weight.copy_(solution[:-1].T)
        self.layout.bias.copy_(solution[-1])


def same_subject(chosen: Tensor, pool: CropPool, generator: torch.Generator) -> Tensor:
    """For each chosen row (B,) of a pool another one, int64 (B,), of the same subject: of one photograph."""
    crops = torch.randint(len(pool) // pool.subjects, chosen.shape, generator=generator)
    return (chosen + crops * pool.subjects) % len(pool)


def random_views(
    images: Tensor, config: EncoderRecipe | CaptionerRecipe, generator: torch.Generator
) -> Tensor:
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


def random_patches(
    count: int, share: float, config: EncoderRecipe, generator: torch.Generator
) -> Tensor | None:
    """Which patches the student sees, the same number in every view: int64 (count, L'); None for all."""
    if share == 1:
        return None
    patches = (config.image_size // config.patch_size) ** 2
    return torch.rand(count, patches, generator=generator).argsort(1)[:, : round(share * patches)]


def train_encoder(
    config: EncoderRecipe,
    folder: Path,
    scratch: Path,
    log: Log,
    draw: Draw = CropPool.draw,
    bank: Split = "train",
) -> dict[str, float]:
    """Train, save the teacher as a timm hub folder (float16) and measure what was saved.

    Args:
        config: the recipe.
        folder: receives `config.json` and `model.safetensors`.
        scratch: where the checkpoint lives until the end.
        log: receives (figures, step).
        draw: gives the pictures.
        bank: the split among whose pictures the figures find neighbours: "val" if it has its own subjects.

    Returns:
        k-nearest-neighbour subject accuracy on validation crops of the saved class token, beside the same
        network untrained and beside colour statistics, without and with a histogram.
    """
    with threads(config.threads):
        torch.manual_seed(config.seed)
        student = Distilled(config)
        pool = draw("train", config.crops_per_subject, config.seed, config.crop_size)
        if config.linear_start:
            student.start_linear(pool, config)
        teacher = Distilled(config).requires_grad_(False)
        teacher.load_state_dict(student.state_dict())
        from lightly.loss import DINOLoss, KoLeoLoss

        token_loss = DINOLoss(
            config.prototypes, teacher_temp=config.teacher_temperature, center_momentum=config.centre_momentum
        )
        spread_loss = KoLeoLoss()

        def terms(phase: EncoderPhase, generator: torch.Generator) -> dict[str, Tensor]:
            first = torch.randint(len(pool), (config.batch_size,), generator=generator)
            second = same_subject(first, pool, generator)
            views = torch.cat(
                [random_views(pool.images(chosen), config, generator) for chosen in (first, second)]
            )
            with torch.no_grad():
                _, target = teacher(views)
            tokens, cosines = student(views, random_patches(len(views), phase.kept_share, config, generator))
            small = F.adaptive_avg_pool2d(views, config.layout_size).flatten(1)
            return {
                "distillation": token_loss(list(target.chunk(2)), list(cosines.chunk(2))),
                "spread": torch.stack([spread_loss(part) for part in tokens.chunk(2)]).sum(),
                "layout": F.mse_loss(student.layout(tokens), small),
                "colours": F.mse_loss(student.colours(tokens), 8 * colour_histogram(views)),
            }

        done = 0
        for number, phase in enumerate(config.phases):

            def step(index: int, generator: torch.Generator, phase: EncoderPhase = phase) -> StepResult:
                found = terms(phase, generator)
                loss = (
                    found["distillation"]
                    + phase.spread_weight * found["spread"]
                    + phase.layout_weight * found["layout"]
                    + phase.colours_weight * found["colours"]
                )
                return loss, {name: term.detach() for name, term in found.items()}

            def after_step(index: int, phase: EncoderPhase = phase) -> None:
                rest = (1 - phase.momentum) * 0.5 * (1 + math.cos(math.pi * index / phase.steps))
                ema_update(teacher, student, 1 - rest)

            def log_on(figures: Mapping[str, float], index: int, before: int = done) -> None:
                log(figures, before + index)

            train_loop(
                f"encoder, phase {number + 1} of {len(config.phases)}",
                replace(config, seed=config.seed + number),
                {"student": student, "teacher": teacher, "centre": token_loss},
                torch.optim.AdamW(parameter_groups(student, config.weight_decay), config.learning_rate),
                step,
                steps=phase.steps,
                after_step=after_step,
                scratch=scratch / f"phase-{number}",
                log=log_on,
            )
            done += phase.steps
        save_vit(teacher.vit.half().float(), architecture(config), folder)
        stats = measure_encoder(folder, config, draw, bank)
    log({f"val/{key}": value for key, value in stats.items()}, done)
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


def measure_encoder(
    folder: Path, config: EncoderRecipe, draw: Draw = CropPool.draw, bank: Split = "train"
) -> dict[str, float]:
    """Subject accuracy of k nearest neighbours: a bank of training crops, queries of validation crops.

    Colours are brought to mean 0 and deviation 1 over the bank first: their raw cosines would tell little.
    """
    known = draw(bank, config.bank_per_subject, config.seed + 2)
    queries = draw("val", config.queries_per_subject, config.seed + 1)
    images, asked = known.images(slice(None)), queries.images(slice(None))

    def accuracy(feature: Callable[[Tensor], Tensor], standardised: bool) -> float:
        keys, new = feature(images), feature(asked)
        if standardised:
            mean, std = keys.mean(0), keys.std(0) + 1e-6
            keys, new = (keys - mean) / std, (new - mean) / std
        return knn_accuracy(keys, known.labels, new, queries.labels, config.neighbours)

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
