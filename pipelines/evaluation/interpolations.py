"""Walk straight from one image's token to another's and watch what the decoder shows (paper, figure 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.evaluation.dataset_view import DatasetView
from reptok.metrics.features import FeatureExtractor
from reptok.metrics.interpolation import Gradualness, gradualness
from reptok.tokenizer import RepTok


@dataclass(frozen=True, kw_only=True)
class Interpolations:
    """What came of it.

    Attributes:
        pairs: positions in the view of the two ends of each path.
        frames: (P, F, 3, H, W) decoded images in [-1, 1].
        pixels: how gradually the pixels change.
        features: how gradually the extractor's features change.
    """

    pairs: list[tuple[int, int]]
    frames: Tensor
    pixels: Gradualness
    features: Gradualness


@torch.no_grad()
def run_interpolations(
    tokenizer: RepTok,
    view: DatasetView,
    tokens: Tensor,
    partners: Tensor,
    extractor: FeatureExtractor,
    *,
    pairs: int,
    frames: int,
    num_steps: int,
) -> Interpolations:
    """Decode evenly spaced mixtures of each pair's tokens, all from the noise of the pair's first image."""
    firsts = torch.linspace(0, len(view) - 1, min(pairs, len(view))).round().long().tolist()
    chosen = [(first, int(partners[first])) for first in firsts]
    rows = []
    for first, second in chosen:
        weights = torch.linspace(0, 1, frames, device=tokens.device)
        mixed = torch.stack([tokens[first].lerp(tokens[second], weight) for weight in weights])
        seeds = [view.examples[first].seed] * frames
        rows.append(tokenizer.detokenize(mixed, num_steps=num_steps, seed=seeds).clamp(-1, 1).cpu())
    images = torch.stack(rows)
    seen = extractor(images.flatten(0, 1).to(tokens.device)).cpu().reshape(*images.shape[:2], -1)
    return Interpolations(pairs=chosen, frames=images, pixels=gradualness(images), features=gradualness(seen))
