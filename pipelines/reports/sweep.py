"""A grid of configurations on one page: every score over what was varied, with what the seeds make of it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from pipelines.evaluation.results import Score
from pipelines.reports.pictures import spreads, stack
from pipelines.reports.report import environment, picture

SHOWN = 4
"""Charts at most: the headline scores."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One point of the grid.

    Attributes:
        values: what it sets, by key.
        scores: of each seed, by name; an arm that failed has none.
        failures: what went wrong, one line a seed that failed.
    """

    values: Mapping[str, str]
    scores: list[dict[str, Score]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What it sets, in words."""
        return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in self.values.items())

    def found(self, name: str) -> list[float]:
        """A score of all its seeds."""
        return [scores[name].value for scores in self.scores if name in scores]


@dataclass(frozen=True)
class Cell:
    """A score of an arm.

    Attributes:
        mean: over the seeds; None where there is none.
        low: of the seeds.
        high: of the seeds.
        resolved: whether all its seeds lie on one side of all the first arm's; None where one seed, or the
            first arm itself, tells nothing.
    """

    mean: float | None
    low: float = 0.0
    high: float = 0.0
    resolved: bool | None = None


@dataclass(frozen=True)
class Line:
    """A score of all arms, with one of them for its name and unit."""

    score: Score
    cells: list[Cell]


def lines_of(arms: Sequence[Arm]) -> list[Line]:
    """Every score that an arm has, in the order of the first one that has it."""
    known = {name: score for arm in reversed(arms) for scores in arm.scores for name, score in scores.items()}
    names = dict.fromkeys(name for arm in arms for scores in arm.scores for name in scores)
    return [Line(known[name], _cells([arm.found(name) for arm in arms])) for name in names]


def _cells(found: Sequence[Sequence[float]]) -> list[Cell]:
    first, cells = found[0], []
    for number, values in enumerate(found):
        if not values:
            cells.append(Cell(None))
            continue
        resolved = None
        if number and min(len(values), len(first)) > 1:
            resolved = min(values) > max(first) or max(values) < min(first)
        cells.append(Cell(sum(values) / len(values), min(values), max(values), resolved))
    return cells


def chart(arms: Sequence[Arm], keys: Sequence[str]) -> Image.Image | None:
    """The headline scores over the first key, a line for each value of the second; None without scores."""
    lines = [line for line in lines_of(arms) if line.score.headline] or lines_of(arms)
    groups: dict[str, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.values[keys[1]] if len(keys) > 1 else "", []).append(arm)
    drawn = []
    for line in lines[:SHOWN]:
        series = {
            f"{keys[1].rpartition('.')[2]} {value}" if value else line.score.measured: [
                (arm.values[keys[0]], arm.found(line.score.name)) for arm in group
            ]
            for value, group in groups.items()
        }
        unit = f" ({line.score.unit})" if line.score.unit else ""
        drawn.append(spreads(series, keys[0], line.score.measured + unit))
    return stack(drawn) if drawn else None


def record(arms: Sequence[Arm]) -> str:
    """All values as JSON, for `read`."""
    rows: list[dict[str, Any]] = [
        {
            "values": dict(arm.values),
            "failures": arm.failures,
            "scores": {
                line.score.name: {
                    "unit": line.score.unit,
                    "headline": line.score.headline,
                    "higher_is_better": line.score.higher_is_better,
                    "images": line.score.images,
                    "seeds": found,
                }
                for line in lines_of(arms)
                if (found := arm.found(line.score.name))
            },
        }
        for arm in arms
    ]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def read(text: str) -> list[Arm]:
    """The arms that `record` wrote down.

    Raises:
        ValueError: It is no such text.
    """
    try:
        return [_arm(row) for row in json.loads(text)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not the values of a grid ({error!r})") from error


def _arm(row: Mapping[str, Any]) -> Arm:
    arm = Arm(values=row["values"], failures=row["failures"])
    for name, found in row["scores"].items():
        about = {
            key: found[key] for key in ("unit", "headline", "higher_is_better", "images") if key in found
        }
        for number, value in enumerate(found["seeds"]):
            if number == len(arm.scores):
                arm.scores.append({})
            arm.scores[number][name] = Score(name=name, value=value, **about)
    return arm


def render_sweep(arms: Sequence[Arm], keys: Sequence[str], seeds: int, shown: Image.Image | None) -> str:
    """Render the page, with its chart, as HTML that needs nothing beside it."""
    pictures = []
    if shown is not None:
        buffer = io.BytesIO()
        shown.save(buffer, "WEBP", lossless=True)
        pictures.append(picture("Scores over what was varied", "", buffer.getvalue()))
    template = environment().get_template("sweep.html.j2")
    return template.render(arms=arms, keys=keys, seeds=seeds, lines=lines_of(arms), pictures=pictures)
