"""How like their captions a dataset's pictures are, in the eyes of a CLIP, by whose the captions are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from reptok.data.images import centre_crop, decode_image
from reptok.data.remote import DataPath, readable
from reptok.data.shards import Sample, read_samples
from reptok.data.stats import QUANTILES, read_index
from reptok.metrics.clip_score import ClipScore

SHARDS, SAMPLES, BATCH = 16, 64, 32
"""Shards that are looked at, evenly spread; samples of each; samples in one call of the model."""


def describe_similarity(dataset: DataPath, clip: Path) -> Iterator[str]:
    """Yield a line for each source of captions: quantiles of the cosines with the pictures.

    Raises:
        ValueError: The dataset or the model is damaged.
    """
    score = ClipScore.from_folder(clip)
    found: dict[str, list[float]] = {}
    samples = _samples(dataset)
    while batch := list(islice(samples, BATCH)):
        pixels = np.stack([centre_crop(decode_image(s.jpg), score.image_size) for s in batch])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        cosines = score.cosine(images, [sample.caption for sample in batch]).tolist()
        for sample, cosine in zip(batch, cosines, strict=True):
            found.setdefault(str(sample.info.get("caption_source", "source")), []).append(cosine)
    marks = ", ".join(f"{quantile} %" for quantile in QUANTILES)
    for source, values in sorted(found.items()):
        shown = ", ".join(f"{value:.3f}" for value in np.percentile(values, QUANTILES))
        yield f"similarity to captions of {source} at {marks}: {shown} ({len(values):,} pictures)"


def _samples(dataset: DataPath) -> Iterator[Sample]:
    """Captioned samples of shards that are evenly spread."""
    shards = [entry.shard for _, entry in read_index(dataset).shards if entry.rows]
    for place in np.unique(np.linspace(0, len(shards) - 1, min(SHARDS, len(shards))).round().astype(int)):
        samples = read_samples(readable(dataset / f"{shards[place]}.tar"))
        yield from islice((sample for sample in samples if sample.caption), SAMPLES)
