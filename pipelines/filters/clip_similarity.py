"""Filter clip: does the picture show what its alt-text says?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from annotated_types import Interval

from pipelines.dag.artifact import Artifact
from pipelines.dag.reference import fetch, located
from pipelines.encoding.device import ComputeConfig
from pipelines.filters.filter import Filter, Finding, Row

if TYPE_CHECKING:
    from reptok.metrics.clip_score import ClipScore

REASON = "unlike_its_text"
SCORE = "clip_similarity"
DIGITS = 5
KEY = "data.filter_images.clip"


@dataclass(frozen=True, kw_only=True)
class ClipSimilarity(Filter):
    """Drop pictures whose CLIP embedding is unlike that of their text; those without a text stay.

    Attributes:
        path: A folder of open_clip's (`open_clip_config.json`, `open_clip_model.safetensors`), a model of the
            hub in that form, or artifact:KIND.
        min_similarity: Least cosine of both embeddings. It depends on the model: for ViT-B/32 of OpenAI,
            COYO's own figures lie about 0.3.
        compute: Device, precision and pictures in one call of the model.
    """

    reads: ClassVar[tuple[str, ...]] = ("jpg", "text")
    scores: ClassVar[tuple[str, ...]] = (SCORE,)

    path: str = field(metadata={"reference": "network"})
    min_similarity: Annotated[float, Interval(ge=-1, le=1)] = 0.2
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The least similarity."""
        return {SCORE: self.min_similarity}

    def placed(self, inputs: Mapping[str, Artifact]) -> Self:
        """Find the folder, or fetch it once."""
        fetch(self, f"{KEY}.path")
        return located(self, inputs, f"{KEY}.path")

    def setup(self) -> None:
        """Load the model on this worker's device."""
        from reptok.metrics.clip_score import ClipScore

        self.compute.prepare()
        object.__setattr__(self, "_clip", ClipScore.from_folder(self.path, self.compute.device))

    def judge_all(self, rows: Sequence[Row]) -> Sequence[Finding]:
        """Embed pictures and texts, `compute.batch_size` of them at a time."""
        told = [row for row in rows if row["text"] and row["text"].strip()]
        similar: dict[str, float] = {}
        for start in range(0, len(told), self.compute.batch_size):
            part = told[start : start + self.compute.batch_size]
            similar |= zip((row["key"] for row in part), self._cosines(part), strict=True)
        return [self._finding(similar.get(row["key"])) for row in rows]

    def _cosines(self, rows: Sequence[Row]) -> list[float]:
        import numpy as np
        import torch

        from reptok.data.images import centre_crop, decode_image

        clip: ClipScore = self._clip  # type: ignore[attr-defined]
        pixels = np.stack([centre_crop(decode_image(row["jpg"]), clip.image_size) for row in rows])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        with self.compute.autocast():
            return clip.cosine(images, [row["text"] for row in rows]).tolist()

    def _finding(self, similarity: float | None) -> Finding:
        if similarity is None:
            return Finding()
        shown = round(similarity, DIGITS)
        return Finding(scores={SCORE: shown}, reason=REASON if shown < self.min_similarity else None)
