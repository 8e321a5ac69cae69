"""Where captions come from: a model that looks, the alt-text, and which of the two an image gets.

Everything about a row follows from its key and content, never from its neighbours in a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.captions.alt_text import AltTextConfig
from pipelines.captions.gates import GatesConfig
from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import WorkerResources
from pipelines.encoding.device import ComputeConfig
from reptok.bounds import Count, Share, Whole
from reptok.configs import VisionLanguageConfig

MODEL, ALT_TEXT, FALLBACK = "model", "alt_text", "fallback"
"""Values of the `source` column."""


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """Who writes captions, and which caption an image gets.

    Attributes:
        model: The vision-language model; None leaves the alt-texts alone.
        mix: Share of images that get the model's caption, drawn before it looks; the others get their
            alt-text, and it looks at those that have none.
        val_mix: The same among rows whose source says that they are for validation; None for `mix`.
        alt_text: How alt-texts are cleaned.
        gates: What a model's caption must be.
        fallback: The caption of an image that has neither.
        seed: Of the mix and of everything that the model draws.
        limit_samples: So many images are enough: the first shards, in order, that hold them are captioned and
            are the dataset; whatever the shuffle, training then reads captioned samples alone. None captions
            all.
        attempts: How often an image on which the model fails is tried.
        max_failed: Largest share of a shard's images on which the model may fail; more is no accident, and
            the shard fails.
        compute: Device, precision and images in one call of the model.
        workers: How many processes write captions, and what each occupies.
    """

    model: VisionLanguageConfig | None = None
    mix: Share = 0.0
    val_mix: Share | None = None
    alt_text: AltTextConfig = field(default_factory=AltTextConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    fallback: str = ""
    seed: Whole = 0
    limit_samples: Count | None = None
    attempts: Count = 3
    max_failed: Share = 0.1
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    workers: WorkerResources = insignificant(factory=WorkerResources)

    def __post_init__(self) -> None:
        for name in ("mix", "val_mix", "max_failed"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"captioner.{name} must be in [0, 1], got {share}")
        if self.model is None and (self.mix > 0 or (self.val_mix or 0) > 0):
            raise ValueError("captioner.mix is above 0, but there is no captioner.model to write captions")
        if self.limit_samples is not None and self.limit_samples < 1:
            raise ValueError(f"captioner.limit_samples must be at least 1, got {self.limit_samples}")
        if self.attempts < 1:
            raise ValueError(f"captioner.attempts must be at least 1, got {self.attempts}")


def choose(row: Mapping[str, Any], fallback: str) -> tuple[str, str, str | None]:
    """Choose an image's caption.

    Args:
        row: `model_first`, whether the mix drew the model's caption; `generated`, the model's captions as
            {"text", "reason"}, the reason None where it passed the gates; `failure`, why the model wrote
            none, if so; `alt_text`, cleaned, or None; `alt_reason`, why there is none.
        fallback: The caption of an image that has no other.

    Returns:
        The caption, its source, and the reason why it is not of the source that was drawn.
    """
    written = next((caption["text"] for caption in row["generated"] if caption["reason"] is None), "")
    refusal = row["failure"] or next((caption["reason"] for caption in row["generated"]), None)
    first: tuple[str, str, str | None] = (ALT_TEXT, row["alt_text"] or "", row["alt_reason"])
    second: tuple[str, str, str | None] = (MODEL, written, refusal)
    if row["model_first"]:
        first, second = second, first
    if first[1]:
        return first[1], first[0], None
    if second[1]:
        return second[1], second[0], first[2]
    return fallback, FALLBACK, first[2] or second[2]


def drawn(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on seed and key alone."""
    return row_seed(seed, f"mix/{key}") / 2**64


def row_seed(seed: int, key: str) -> int:
    """64 bits that depend on seed and key alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big")
