"""Several runs on one page: scores, what differs in their configuration, losses, pictures side by side.

Everything is read from what the runs published; nothing is computed anew.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.planner import flat
from pipelines.dag.progress import duration
from pipelines.dag.redaction import redacted
from pipelines.dag.storage import open_folder
from pipelines.evaluation.results import REPORTS, Score
from pipelines.reports import literature
from pipelines.reports.lineage import Step, lineage
from pipelines.reports.pictures import curves
from pipelines.reports.report import CURVES, HISTORY_FILE, Chapter, Picture, chapter_of, environment, picture

MODEL = "model"
ABSENT = "–"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A published model with everything that led to it.

    Attributes:
        label: what the page calls it.
        model: the artifact.
        steps: its lineage, sources first.
        chapters: its evaluations by kind of report.
    """

    label: str
    model: Artifact
    steps: list[Step]
    chapters: dict[str, Chapter]


@dataclass(frozen=True)
class Line:
    """A score of every run.

    Attributes:
        name: what was measured.
        scores: one per run, None where a run has none.
        best: positions of the best values; none where they cannot be told apart by two standard errors.
        resolved: whether the best is that far from all others; None where errors are not known.
    """

    name: str
    scores: list[Score | None]
    best: set[int]
    resolved: bool | None


def find_runs(places: Sequence[str]) -> list[Run]:
    """Open published models by their folders, or by roots, whose newest model counts.

    Raises:
        ValueError: a place holds no published model, one stands there twice, or there are fewer than two.
    """
    models = [_model(place) for place in places]
    if len({model.url for model in models}) < max(2, len(models)):
        raise ValueError("compare wants two models or more, each once: folders of models, or roots")
    labels = _labels(models)
    runs = []
    for model, label in zip(models, labels, strict=True):
        steps = lineage([model])
        reports = [step.artifact for step in steps if step.artifact.kind in REPORTS]
        try:
            chapters = {report.kind: chapter_of(report) for report in reports}
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{model.url} was evaluated by other code, whose reports are not read: run it again"
            ) from error
        if not chapters:
            raise ValueError(
                f"{model.url} has no reports beside it: a model is compared in the root that it was made in"
            )
        runs.append(Run(label=label, model=model, steps=steps, chapters=chapters))
    return runs


def render_comparison(runs: Sequence[Run]) -> str:
    """Render the page as HTML that needs nothing beside it."""
    template = environment().get_template("comparison.html.j2")
    return template.render(
        runs=runs,
        tables=[(kind, lines) for kind in REPORTS if (lines := scores_of(runs, kind))],
        differences=differences(runs),
        same=all(_config(run) == _config(runs[0]) for run in runs),
        losses=loss_curves(runs),
        figures=figures_of(runs),
        literature=literature,
        seconds=[duration(sum(step.seconds for step in run.steps)) for run in runs],
        commits=[sorted({step.git_commit[:12] for step in run.steps}) for run in runs],
        absent=ABSENT,
    )


def scores_of(runs: Sequence[Run], kind: str) -> list[Line]:
    """Every score of one evaluation, in the order of the first run that has it."""
    found = [
        {score.name: score for score in run.chapters[kind].evaluation.scores} if kind in run.chapters else {}
        for run in runs
    ]
    names = list(dict.fromkeys(name for scores in found for name in scores))
    return [_line(name, [scores.get(name) for scores in found]) for name in names]


def _line(name: str, scores: list[Score | None]) -> Line:
    known = [(number, score) for number, score in enumerate(scores) if score is not None]
    better = known[0][1].higher_is_better
    if better is None or len(known) < 2:
        return Line(name, scores, set(), None)
    best = (max if better else min)(score.value for _, score in known)
    first = {number for number, score in known if score.value == best}
    if len(first) == len(known):  # all alike
        return Line(name, scores, set(), None)
    winner = scores[min(first)]
    assert winner is not None
    if winner.error is None or any(score.error is None for _, score in known):
        return Line(name, scores, first, None)
    apart = all(
        abs(score.value - best) > 2 * ((score.error or 0) ** 2 + winner.error**2) ** 0.5
        for number, score in known
        if number not in first
    )
    return Line(name, scores, first if apart else set(), apart)


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Values of the configuration that not all runs share, as (stage.key, one text per run)."""
    configs = [_config(run) for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    rows = [(key, [config.get(key, ABSENT) for config in configs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def loss_curves(runs: Sequence[Run]) -> list[Picture]:
    """For each training and loss one picture with a line per run that left its history."""
    series: dict[tuple[str, str], dict[str, tuple[list[float], list[float]]]] = {}
    for run in runs:
        for step in run.steps:
            for file in step.artifact.files(f"*{HISTORY_FILE}"):
                history: list[Mapping[str, Any]] = step.artifact.read_json(file)
                for name in CURVES:
                    points = [(entry["step"], entry[name]) for entry in history if name in entry]
                    if points:
                        steps, values = zip(*points, strict=True)
                        series.setdefault((step.stage, name), {})[run.label] = (list(steps), list(values))
    pictures = []
    for (stage, name), lines in series.items():
        buffer = io.BytesIO()
        curves(lines, "step", name).save(buffer, "WEBP", lossless=True)
        pictures.append(picture(f"{stage}: {name}", "", buffer.getvalue()))
    return pictures


def figures_of(runs: Sequence[Run]) -> list[tuple[str, str, list[Picture | None]]]:
    """Pictures of the same title as (title, caption, one per run); same validation images, same noise."""
    found = [
        {(kind, shown.title): shown for kind, chapter in run.chapters.items() for shown in chapter.pictures}
        for run in runs
    ]
    keys = dict.fromkeys(key for pictures in found for key in pictures)
    rows = []
    for key in keys:
        shown = [pictures.get(key) for pictures in found]
        rows.append((key[1], next(p.caption for p in shown if p is not None), shown))
    return rows


def _config(run: Run) -> dict[str, str]:
    values = flat({step.stage: step.config for step in run.steps})
    return {key: redacted(str(value)) for key, value in values.items()}


def _model(place: str) -> Artifact:
    folder = open_folder(place)
    kind, _, fingerprint = folder.url.rstrip("/").rpartition("/")
    if kind.endswith(f"/{MODEL}") and Artifact(MODEL, fingerprint, folder.url).published:
        return Artifact(MODEL, fingerprint, folder.url)
    models = open_folder(folder.url_of(MODEL))
    published = [
        artifact
        for name in models.children()
        if (artifact := Artifact(MODEL, name, models.url_of(name))).published
    ]
    if not published:
        raise ValueError(f"{place} is no folder of a published model, and no root that holds one")
    return max(published, key=lambda artifact: str(artifact.manifest.get("created", "")))


def _labels(models: Sequence[Artifact]) -> list[str]:
    """The last part of each root, and the beginning of the fingerprint where roots are alike."""
    roots = [model.url.rstrip("/").rsplit("/", 3)[1] for model in models]
    return [
        root if roots.count(root) == 1 else f"{root} {model.fingerprint[:6]}"
        for root, model in zip(roots, models, strict=True)
    ]
