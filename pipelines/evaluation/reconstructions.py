"""Reconstruct validation images in every way that makes one figure mean something.

The VAE alone is the ceiling. The subject's mean training image is what a model would show that knew only the
subject. The same decoder fed with another image's token is what it would show if it ignored its token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from pipelines.evaluation.feature_bank import FeatureBank
from pipelines.evaluation.loss_by_time import loss_by_time
from reptok.flow.loss import velocity_loss
from reptok.flow.noise import noise_from_seeds
from reptok.flow.path import LINEAR_PATH
from reptok.metrics.evaluator import ReconstructionEvaluator
from reptok.metrics.features import FeatureExtractor
from reptok.tokenizer import RepTok
from reptok.training.objectives import SEGMENTS

REPTOK, VAE, MEAN, WRONG, REFERENCE = "RepTok", "VAE", "subject mean", "wrong token", "reference"


@dataclass(frozen=True, kw_only=True)
class Reconstructions:
    """What came of it.

    Attributes:
        methods: evaluator per method, each having seen every image of the view in its order.
        originals: features (N, D) of the originals by extractor name.
        tokens: (N, ...) tokens of the originals.
        partners: (N,) whose token each image got as the wrong one.
        losses: (8,) velocity loss at the midpoints of eight segments of time, from noise to data.
    """

    methods: dict[str, ReconstructionEvaluator]
    originals: dict[str, Tensor]
    tokens: Tensor
    partners: Tensor
    losses: Tensor


@torch.no_grad()
def run_reconstructions(
    tokenizer: RepTok,
    reference: RepTok | None,
    view: DatasetView,
    bank: FeatureBank,
    extractors: Sequence[FeatureExtractor],
    *,
    lpips: Callable[[Tensor, Tensor], Tensor] | None,
    num_steps: int,
    batch_size: int,
    progress: Callable[[int, int], None],
) -> Reconstructions:
    """Score every method on every image of `view`; an image's noise follows from its key alone."""
    labels = bank.labels_of(view)
    methods = {name: ReconstructionEvaluator(extractors, lpips) for name in (VAE, REPTOK)}
    if reference is not None:
        methods[REFERENCE] = ReconstructionEvaluator(extractors, lpips)
    methods |= {name: ReconstructionEvaluator() for name in (MEAN, WRONG)}
    originals: dict[str, list[Tensor]] = {extractor.name: [] for extractor in extractors}
    tokens, losses = [], torch.zeros(SEGMENTS, dtype=torch.float64)
    for positions, images in view.batches(batch_size):
        images = images.to(tokenizer.device)
        seeds = [view.examples[position].seed for position in positions]
        for extractor in extractors:
            originals[extractor.name].append(extractor(images).cpu())
        latents = tokenizer.autoencoder.encode(images)
        methods[VAE].add(tokenizer.autoencoder.decode(latents), images)
        tokens.append(tokenizer.tokenize(images))
        methods[REPTOK].add(tokenizer.detokenize(tokens[-1], num_steps=num_steps, seed=seeds), images)
        methods[MEAN].add(bank.mean_image_of(labels[positions]).to(images), images)
        if reference is not None:
            methods[REFERENCE].add(reference.reconstruct(images, num_steps=num_steps, seed=seeds), images)
        losses += _losses(tokenizer, latents, tokens[-1], seeds)
        progress(positions[-1] + 1, 2 * len(view))
    known, partners = torch.cat(tokens), derangement(labels)
    for positions, images in view.batches(batch_size):
        seeds = [view.examples[position].seed for position in positions]
        wrong = tokenizer.detokenize(known[partners[positions]], num_steps=num_steps, seed=seeds)
        methods[WRONG].add(wrong, images.to(wrong))
        progress(len(view) + positions[-1] + 1, 2 * len(view))
    return Reconstructions(
        methods=methods,
        originals={name: torch.cat(features) for name, features in originals.items()},
        tokens=known,
        partners=partners,
        losses=losses / len(view),
    )


def derangement(labels: Tensor) -> Tensor:
    """Give every sample a partner of another label where the labels allow it, and never itself.

    Sorted by label and moved by the largest label's count, no sample meets its own label as long as none
    holds more than half of all samples.

    Args:
        labels: (N,) integers, N > 1.

    Raises:
        ValueError: if there is nobody else to be paired with.
    """
    if len(labels) < 2:
        raise ValueError("a wrong token needs a second validation image")
    order = torch.argsort(labels, stable=True)
    largest = int(torch.unique(labels, return_counts=True)[1].max())
    shift = largest if largest < len(labels) else 1
    partners = torch.empty_like(order)
    partners[order] = order.roll(-shift)
    return partners


def _losses(tokenizer: RepTok, latents: Tensor, token: Tensor, seeds: Sequence[int]) -> Tensor:
    """Sums over a batch of the velocity loss at each segment's midpoint."""
    noise = noise_from_seeds(seeds, latents.shape[1:]).to(latents)

    def losses(t: Tensor) -> Tensor:
        point = LINEAR_PATH.sample(noise, latents, t)
        return velocity_loss(tokenizer.velocity(point.x_t, t, token), point.v_t)

    return loss_by_time(losses, latents)
