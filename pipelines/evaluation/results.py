"""What an evaluation stage leaves behind: scores with their baselines, figures with their captions.

The report, the model card and the table at the end of a run all show the same of these.

    metrics.json   {title, lead, scores, figures, notes, metrics}
    *.webp         the figures
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from pipelines.dag.artifact import Artifact
from pipelines.dag.workspace import Workspace

METRICS_FILE = "metrics.json"
REPORTS = ("tokenizer_report", "generator_report")
"""Kinds of the evaluations that a published model has."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure with what it must be compared with.

    Attributes:
        name: what was measured, in words.
        value: the result.
        unit: "dB", "%" or nothing.
        baselines: what to hold beside it: the floor, the ceiling, a reference.
        higher_is_better: which direction is progress; None where neither is.
        note: one sentence on how it was measured.
        headline: whether it belongs on top of the report.
        images: how many images it was measured on; 0 where it is no figure of images.
        error: its standard error in the same unit; None where no formula gives one.
    """

    name: str
    value: float
    unit: str = ""
    baselines: Mapping[str, float] = field(default_factory=dict)
    higher_is_better: bool | None = True
    note: str = ""
    headline: bool = False
    images: int = 0
    error: float | None = None

    @property
    def measured(self) -> str:
        """The name, and on how many images: where nothing else says it."""
        return f"{self.name}, N = {self.images:,}" if self.images else self.name

    @property
    def certainty(self) -> str:
        """`± 0.3, N = 200`, as far as they are known."""
        error = f"± {self._digits(self.error)}" if self.error is not None else ""
        return ", ".join(filter(None, [error, f"N = {self.images:,}" if self.images else ""]))

    def show(self, value: float | None = None) -> str:
        """The value, or another one in the same unit, with sensible digits."""
        return f"{self._digits(self.value if value is None else value)}{' ' if self.unit else ''}{self.unit}"

    def _digits(self, number: float) -> str:
        digits = 3 if abs(number) < 1 and self.unit != "%" else (1 if self.unit in ("dB", "%") else 2)
        return f"{number:.{digits}f}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture of the report: its file in the artifact, a title and what one sees in it."""

    file: str
    title: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The content of an evaluation artifact.

    Attributes:
        title: heading of its section in the report.
        lead: two sentences on what was done and how to read it.
        scores: the figures that matter, best first.
        figures: the pictures in reading order.
        notes: what was not measured, with the reason.
        metrics: every flat figure, as returned to the runner.
    """

    title: str
    lead: str
    scores: list[Score]
    figures: list[Figure]
    notes: list[str]
    metrics: dict[str, float]

    def write(self, out: Workspace) -> None:
        """Write `metrics.json`; the pictures are written by `save_figure`."""
        data = asdict(self)
        for score in data["scores"]:
            score["baselines"] = list(score["baselines"].items())  # in reading order, which JSON objects lose
        out.write_json(METRICS_FILE, data)

    @classmethod
    def read(cls, artifact: Artifact) -> Evaluation:
        """Read what `write` wrote."""
        data: dict[str, Any] = artifact.read_json(METRICS_FILE)
        data["scores"] = [
            Score(**{**score, "baselines": dict(score["baselines"])}) for score in data["scores"]
        ]
        data["figures"] = [Figure(**figure) for figure in data["figures"]]
        return cls(**data)


def save_figure(out: Workspace, picture: Image.Image, figure: Figure) -> Figure:
    """Write a picture into the artifact and to the stage's log."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=90, method=4)
    out.write_bytes(figure.file, buffer.getvalue())
    out.log.picture(figure.file.removesuffix(".webp"), picture)
    return figure
