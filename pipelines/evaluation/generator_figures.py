"""The pictures of a generator's evaluation."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView, Example
from pipelines.evaluation.feature_bank import FeatureBank
from pipelines.evaluation.results import Figure
from pipelines.evaluation.samples import Sampler
from pipelines.evaluation.tokenizer_figures import one_per_subject
from pipelines.reports.pictures import Row, dots, grid
from reptok.pipeline import to_pictures

SAMPLES = Figure(
    file="samples.webp",
    title="Generated images",
    caption="Every row is one condition from the validation set. Left and right start from the same noise, "
    "with another strength of guidance.",
)
NEIGHBOURS = Figure(
    file="neighbours.webp",
    title="Copied or made?",
    caption="The samples that come closest to a training image, one per subject, above that very image: the "
    "most suspicious cases, not typical ones.",
)
RECOGNITION = Figure(
    file="recognition.webp",
    title="Recognised as what was asked for",
    caption="Share of the images in which the nearest training images vote for what was asked: real "
    "validation images, and samples made from their captions or labels.",
)
LOSSES = Figure(
    file="loss_by_time.webp",
    title="Where along the flow the error lies",
    caption="The generator's validation loss at eight times between noise (0) and token (1), with the same "
    "noise for all of them.",
)


def samples_picture(
    sampler: Sampler, view: DatasetView, guidance: tuple[float, ...], rows: int, columns: int
) -> Image.Image:
    """One row per condition; for each guidance, the same `columns` seeds."""
    lines = []
    for position in one_per_subject(view, rows):
        example = view.examples[position]
        seeds = list(range(columns))
        images = [sampler([example] * columns, seeds, scale) for scale in guidance]
        lines.append(Row(images=to_pictures(torch.cat(images)), label=condition_text(sampler, example)))
    titles = [(f"guidance {scale:g}", columns) for scale in guidance]
    return grid(lines, titles, tile=96, label_width=210 if lines[0].label else 0)


def neighbours_picture(
    view: DatasetView, bank: FeatureBank, images: Tensor, similarity: Tensor, nearest: Tensor, shown: int
) -> Image.Image:
    """Samples above their nearest training image, most similar first, one per subject.

    Args:
        view: what was asked for.
        bank: the training images.
        images: uint8 (N, 3, H, W) samples.
        similarity: (N,) to the nearest training image.
        nearest: (N,) position of that image in the bank.
        shown: number of columns.
    """
    best: dict[str, int] = {}
    for position in similarity.argsort(descending=True).tolist():
        best.setdefault(view.examples[position].subject or str(position), position)
    chosen = list(best.values())[:shown]
    samples = to_pictures(images[chosen].float() / 127.5 - 1)
    originals = to_pictures(bank.view.images(nearest[chosen].tolist()))
    titles = [(f"cosine {similarity[position]:.2f}", 1) for position in chosen]
    rows = [Row(images=samples, label="sample"), Row(images=originals, label="nearest training image")]
    return grid(rows, titles, tile=112, label_width=130)


def recognition_picture(
    view: DatasetView, bank: FeatureBank, real: Tensor, made: dict[float, Tensor]
) -> Image.Image:
    """Recognition per subject.

    Args:
        view: what was asked for.
        bank: names of the subjects.
        real: (N,) bool, whether each validation image was recognised.
        made: the same of the samples, per guidance.
    """
    labels = bank.labels_of(view)
    present = [number for number in range(len(bank.subjects)) if (labels == number).any()]

    def shares(hits: Tensor) -> list[float]:
        return [100 * float(hits[labels == number].double().mean()) for number in present]

    series = {"real images": shares(real)} | {
        f"guidance {scale:g}": shares(hits) for scale, hits in made.items()
    }
    return dots([bank.subjects[number] for number in present], series, "recognised, %")


def condition_text(sampler: Sampler, example: Example) -> str:
    """What the generator was told, for people."""
    return sampler.pipe.conditioner.title(example.caption, example.subject or "")
