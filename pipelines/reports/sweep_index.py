"""Grids that were run, each with what the paper says of it, as one Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation.results import Score
from pipelines.reports.report import environment
from pipelines.reports.sweep import Arm, Cell, Line, lines_of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named grid.

    Attributes:
        title: what is compared.
        paper: where the paper shows it.
        says: what it says there, with the figures that it prints.
        over: values by key; the first value is the one that the others are held beside.
        words: what all runs have in common.
        scores: names of the scores that the page shows; the first one leads.
    """

    title: str
    paper: str
    says: str = ""
    over: Mapping[str, Sequence[str]]
    words: Sequence[str] = ()
    scores: Sequence[str]

    def __post_init__(self) -> None:
        if not self.over or any(len(set(values)) < 2 for values in self.over.values()):
            raise ValueError("over needs a key with two different values or more")
        if not self.scores:
            raise ValueError("scores needs a name, the score that leads")


@dataclass(frozen=True)
class Section:
    """What the page shows of one recipe."""

    name: str
    recipe: Recipe
    arms: Sequence[Arm]
    lines: Sequence[Line]

    @property
    def seeds(self) -> int:
        """Runs of the arm that has most of them."""
        return max(len(arm.scores) for arm in self.arms)

    @property
    def found(self) -> str:
        """The leading score of all arms in a row, and what of it is not resolved."""
        lead = self.lines[0]
        told = {None: "", True: "", False: " (not resolved)"}
        return "; ".join(
            f"{arm.label}: {lead.score.show(cell.mean)}{told[cell.resolved]}"
            for arm, cell in zip(self.arms, lead.cells, strict=True)
            if cell.mean is not None
        )


def page(recipes: Mapping[str, Recipe], found: Mapping[str, Sequence[Arm]]) -> str:
    """Render the page over those recipes that were run; their charts lie beside it as NAME.webp.

    Args:
        recipes: by name, in the order of the page.
        found: what became of each.
    """
    sections = []
    for name, recipe in recipes.items():
        lines = {line.score.name: line for line in lines_of(found.get(name, ()))}
        if shown := [lines[score] for score in recipe.scores if score in lines]:
            sections.append(Section(name, recipe, found[name], shown))
    templates = environment()
    templates.filters["cell"] = _cell
    return templates.get_template("sweep_index.md.j2").render(sections=sections)


def _cell(cell: Cell, score: Score) -> str:
    if cell.mean is None:
        return "–"
    spread = f" ({score.show(cell.low)} to {score.show(cell.high)})" if cell.high > cell.low else ""
    mean = score.show(cell.mean)
    return {True: f"**{mean}**", False: f"*{mean}, not resolved*", None: mean}[cell.resolved] + spread
