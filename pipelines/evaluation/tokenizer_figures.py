"""The pictures of a tokenizer's evaluation."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from pipelines.evaluation.feature_bank import FeatureBank
from pipelines.evaluation.interpolations import Interpolations
from pipelines.evaluation.reconstructions import (
    MEAN,
    REFERENCE,
    REPTOK,
    VAE,
    Reconstructions,
)
from pipelines.evaluation.results import Figure
from pipelines.reports.pictures import Row, dots, grid, stack
from reptok.pipeline import to_pictures
from reptok.tokenizer import RepTok

COLUMNS_PER_BAND = 10

RECONSTRUCTIONS = Figure(
    file="reconstructions.webp",
    title="Reconstructions",
    caption="Validation images, one per subject. The VAE alone is the best that any token could reach; the "
    "last row is the same decoder fed with another image's token: what differs came through the token.",
)
INTERPOLATIONS = Figure(
    file="interpolations.webp",
    title="Between two tokens",
    caption="Outside, two validation images; between them, the decoded mixtures of their tokens in equal "
    "steps, all from the same noise.",
)
SUBJECTS = Figure(
    file="subjects.webp",
    title="Subject by subject",
    caption="Mean PSNR of each subject's validation images. The way from the grey dot to RepTok is what the "
    "token knows beyond the subject's name; the rest of the way to the VAE is what it lost.",
)
LOSSES = Figure(
    file="loss_by_time.webp",
    title="Where along the flow the error lies",
    caption="The decoder's validation loss at eight times between noise (0) and image (1), with the same "
    "noise for all of them.",
)


@torch.no_grad()
def reconstruction_picture(
    tokenizer: RepTok,
    reference: RepTok | None,
    view: DatasetView,
    found: Reconstructions,
    shown: int,
    num_steps: int,
) -> Image.Image:
    """One column per subject (or per image, without subjects), one row per method."""
    positions = one_per_subject(view, shown)
    images = view.images(positions).to(tokenizer.device)
    seeds = [view.examples[position].seed for position in positions]
    tokens = found.tokens[positions]
    wrong = found.tokens[found.partners[positions]]
    lines = {
        "original": images,
        "VAE alone": tokenizer.autoencoder.decode(tokenizer.autoencoder.encode(images)),
        "RepTok": tokenizer.detokenize(tokens, num_steps=num_steps, seed=seeds),
    }
    if reference is not None:
        lines["reference"] = reference.reconstruct(images, num_steps=num_steps, seed=seeds)
    lines["wrong token"] = tokenizer.detokenize(wrong, num_steps=num_steps, seed=seeds)
    titles = [view.examples[position].subject or "" for position in positions]
    pictures = {label: to_pictures(line) for label, line in lines.items()}
    bands = []
    for start in range(0, len(positions), COLUMNS_PER_BAND):
        part = slice(start, start + COLUMNS_PER_BAND)
        columns = [(title, 1) for title in titles[part]] if any(titles) else []
        bands.append(grid([Row(images=line[part], label=label) for label, line in pictures.items()], columns))
    return stack(bands)


def interpolation_picture(view: DatasetView, found: Interpolations, shown: int) -> Image.Image:
    """One row per pair: the first image, the decoded mixtures of the two tokens, the second image."""
    rows = []
    for (first, second), frames in list(zip(found.pairs, found.frames, strict=True))[:shown]:
        ends = to_pictures(view.images([first, second]))
        names = [view.examples[position].subject or "" for position in (first, second)]
        label = f"{names[0]} to {names[1]}" if all(names) else ""
        rows.append(Row(images=[ends[0], *to_pictures(frames), ends[1]], label=label))
    columns = [
        ("original", 1),
        ("decoded mixtures of the two tokens", found.frames.shape[1]),
        ("original", 1),
    ]
    return grid(rows, columns, tile=96, label_width=190 if rows[0].label else 0)


def subject_picture(view: DatasetView, bank: FeatureBank, found: Reconstructions) -> Image.Image:
    """PSNR per subject: its mean image, RepTok, the reference, the VAE."""
    labels = bank.labels_of(view)
    present = [number for number in range(len(bank.subjects)) if (labels == number).any()]
    order = [MEAN, VAE, REFERENCE, REPTOK]
    series = {
        name: [_mean_of(found.methods[name].values("psnr"), labels == number) for number in present]
        for name in order
        if name in found.methods
    }
    return dots(
        [bank.subjects[number] for number in present], series, "PSNR in dB, mean over the subject's images"
    )


def one_per_subject(view: DatasetView, limit: int) -> list[int]:
    """Positions of the first image of each subject; of evenly spread images where there are no subjects."""
    first: dict[str, int] = {}
    for position, example in enumerate(view.examples):
        if example.subject is not None:
            first.setdefault(example.subject, position)
    if first:
        return [first[subject] for subject in sorted(first)][:limit]
    return torch.linspace(0, len(view) - 1, min(limit, len(view))).round().long().tolist()


def _mean_of(values: Tensor, chosen: Tensor) -> float:
    return float(values[chosen].mean())
