"""The report of a run: one HTML file that needs nothing beside it, for light and dark screens.

All texts are escaped by the template; pictures are inside as data URIs.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipelines.dag.artifact import Artifact
from pipelines.dag.progress import duration
from pipelines.evaluation.results import Evaluation, Score
from pipelines.reports.lineage import Step
from pipelines.reports.pictures import curves
from reptok.terminal import visible
from reptok.training.scores import OF, ONLINE

TEMPLATES = Path(__file__).parent / "templates"
HISTORY_FILE = "history.json"
CURVES = ("train/loss", "train/velocity", "val/loss")
"""What of a training's history is drawn, where it is there."""
QUALITY = {"psnr": "PSNR in dB", "token_frechet": "Frechet distance of tokens"}
"""What they are, for people."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture inside the report."""

    title: str
    caption: str
    source: str
    width: int


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """An evaluation with its pictures loaded."""

    evaluation: Evaluation
    pictures: list[Picture]


def render_report(
    title: str, chapters: Sequence[Chapter], trainings: Sequence[Picture], steps: Sequence[Step]
) -> str:
    """Render the whole report as HTML."""
    template = environment().get_template("report.html.j2")
    return template.render(
        title=title,
        chapters=chapters,
        trainings=trainings,
        steps=steps,
        accounts=[step for step in steps if step.rows_in is not None],
        headlines=[score for chapter in chapters for score in chapter.evaluation.scores if score.headline],
        configs={step.stage: json.dumps(step.config, indent=2, sort_keys=True) for step in steps},
        commits=sorted({step.git_commit[:12] for step in steps}),
        marks=marks,
        duration=duration,
    )


def chapter_of(artifact: Artifact) -> Chapter:
    """Load an evaluation artifact with its pictures."""
    evaluation = Evaluation.read(artifact)
    pictures = []
    for figure in evaluation.figures:
        data = artifact.read_bytes(figure.file)
        pictures.append(picture(figure.title, figure.caption, data))
    return Chapter(evaluation=evaluation, pictures=pictures)


def training_pictures(artifacts: Mapping[str, Artifact]) -> list[Picture]:
    """Losses and quality over the steps of trainings that left their history; none for those that did not."""
    pictures = []
    for title, artifact in artifacts.items():
        for name in artifact.files(f"*{HISTORY_FILE}"):
            history = artifact.read_json(name)
            drawn = [("Losses over the training's steps.", history_curves(history)), *quality_curves(history)]
            for caption, image in drawn:
                if image is not None:
                    buffer = io.BytesIO()
                    image.save(buffer, "WEBP", lossless=True)
                    pictures.append(picture(title, caption, buffer.getvalue()))
    return pictures


def quality_curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, Image.Image]]:
    """Draw the scores that a training took on its way, each with a caption; nothing where it took none."""
    found = []
    for name in dict.fromkeys(name for entry in history for name in entry if name.startswith(ONLINE)):
        steps, values = zip(*((e["step"], e[name]) for e in history if name in e), strict=True)
        what, _, samples = name.removeprefix(ONLINE).rpartition(OF)
        caption = (
            f"Quality over the training's steps, by the averaged weights on {samples} validation samples, "
            "to compare steps and runs."
        )
        label = QUALITY.get(what, what.replace("_", " "))
        found.append((caption, curves({name: (list(steps), list(values))}, "step", label)))
    return found


def history_curves(history: Sequence[Mapping[str, Any]]) -> Image.Image | None:
    """Draw a training's history, a list of {step, name: value}; None if no loss is in it."""
    series = {}
    for name in CURVES:
        points = [(entry["step"], entry[name]) for entry in history if name in entry]
        if points:
            steps, values = zip(*points, strict=True)
            series[name] = (list(steps), list(values))
    return curves(series, "step", "loss") if series else None


def marks(score: Score) -> list[tuple[float, str]]:
    """Where a score and its baselines lie on one line, as (percent, label); the score comes last."""
    values = {**score.baselines, "this model": score.value}
    low, high = min(values.values()), max(values.values())
    span = (high - low) or 1.0
    return [(100 * (value - low) / span, f"{name}: {score.show(value)}") for name, value in values.items()]


def picture(title: str, caption: str, data: bytes) -> Picture:
    """A picture file as a part of a page."""
    with Image.open(io.BytesIO(data)) as image:
        kind, width = str(image.format).lower(), image.width
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Picture(title=title, caption=caption, source=source, width=width)


def environment() -> Environment:
    """The templates, which escape every text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _markdown
    return environment


_MARKUP = re.compile(
    r"[\\`*\[\]<>|~$@]"
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    r"|^[-+=#]|#(?=#*$)|^[0-9](?=[0-9]{0,8}[.)]( |$))"
    r"|:(?=//)|(?<=www)\."
)
"""What has a meaning in a line of Markdown, as GitHub reads it, at its beginning too."""


def _markdown(text: object) -> str:
    """Text of strangers, names of classes among it, as one line of Markdown that means only itself."""
    line = " ".join(visible(text).split()).replace("&", "&amp;")
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", line)
