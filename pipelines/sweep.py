"""Run grids of configurations in one root, share what they have in common, and end in pictures and tables.

    python -m pipelines sweep over=KEY=A,B[,C] [over=KEY2=D,E] [seeds=2] [out=sweep.html] [key=value ...]
    python -m pipelines sweep recipe=NAME[,NAME ...] [seeds=2] [out=sweeps] [key=value ...]

Each value of the first key, with each of the second, is a run of the workflow that the other words describe,
once for each seed of the trainings. What is published is not made again: the same command goes on where it
ended. Beside the page lie its picture (.webp) and all values (.json). One that fails stops no other.

Recipes are the grids of the paper's tables and figures (`sweeps.yaml` in the folders of the configuration;
`recipe=all` runs them all): each has a page in the folder `out`, whose README.md shows all that were run,
beside what the paper says.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines import run_all
from pipelines.configuration.choices import there_is_no
from pipelines.configuration.compose import CONF_DIR, load_config
from pipelines.configuration.construct import construct
from pipelines.configuration.schema import Config
from pipelines.dag.redaction import redacted
from pipelines.dag.stage import StageResult
from pipelines.dag.writing import file_errors
from pipelines.evaluation.results import Evaluation, Score
from pipelines.reports.summary import EVALUATIONS
from pipelines.reports.sweep import Arm, chart, lines_of, read, record, render_sweep
from pipelines.reports.sweep_index import Recipe, page

KEYS = 2
SEEDS = ("train.tokenizer.seed", "train.generator.seed")


@dataclass(frozen=True)
class Grid:
    """What is asked for.

    Attributes:
        over: values by key, in the order in which they were given.
        seeds: runs of each.
        out: the page.
        rest: what all runs have in common.
    """

    over: Mapping[str, Sequence[str]]
    seeds: int
    out: Path
    rest: list[str]

    def __post_init__(self) -> None:
        if not 1 <= len(self.over) <= KEYS:
            raise ValueError("what is to be varied? over=KEY=A,B, once or twice, or recipe=NAME")
        varied = {*self.over, *(SEEDS if self.seeds > 1 else ())}
        if clash := {word.partition("=")[0] for word in self.rest} & varied:
            raise ValueError(f"{', '.join(sorted(clash))} is varied: leave it out of the rest")

    def points(self) -> Iterator[dict[str, str]]:
        """One value of each key."""
        for values in itertools.product(*self.over.values()):
            yield dict(zip(self.over, values, strict=True))


@dataclass(frozen=True)
class Planned:
    """One run of a grid: its place, what it sets, and its configuration."""

    arm: Arm
    words: list[str]
    overrides: list[str]
    config: Config


def parse(arguments: Sequence[str]) -> tuple[list[Grid], Path | None]:
    """Read the command line: the grids, and the folder of recipes' pages where they come from recipes.

    Raises:
        ValueError: No key, too many, fewer than two values of one, or an unknown recipe.
    """
    over: dict[str, Sequence[str]] = {}
    seeds, out, names, rest = 1, "", "", []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name == "over":
            key, separator, values = value.partition("=")
            found = _split(values)
            if not separator or len(found) < 2 or len(set(found)) < len(found) or key in over:
                raise ValueError(
                    f"{argument}: write over=KEY=A,B with two different values or more, each key once"
                )
            over[key] = found
        elif name == "recipe":
            names = value
        elif name == "seeds":
            if not value.isdecimal() or not int(value):
                raise ValueError(f"seeds={value}: how many, 1 or more?")
            seeds = int(value)
        elif name == "out":
            out = value
        else:
            rest.append(argument)
    if not names:
        return [Grid(over, seeds, Path(out or "sweep.html"), rest)], None
    if over:
        raise ValueError("a recipe says what is varied: leave over= out, or the recipe")
    folder = Path(out or "sweeps")
    return [
        Grid(recipe.over, seeds, folder / f"{name}.html", [*recipe.words, *rest])
        for name, recipe in chosen(names).items()
    ], folder


def recipes() -> dict[str, Recipe]:
    """All recipes by name, from `sweeps.yaml` in every folder of the configuration.

    Raises:
        ValueError: A recipe is none.
    """
    import yaml

    found: dict[str, Recipe] = {}
    for folder in [CONF_DIR, *Config.extra_folders()]:
        path = folder / "sweeps.yaml"
        if path.is_file():
            for name, values in yaml.safe_load(path.read_text()).items():
                found[name] = construct(Recipe, values, f"{path.name}: {name}")
    return found


def chosen(names: str) -> dict[str, Recipe]:
    """The recipes that a list of names, or `all`, stands for.

    Raises:
        ValueError: There is none of such a name.
    """
    known = recipes()
    wanted = list(known) if names == "all" else names.split(",")
    for name in wanted:
        if name not in known:
            raise ValueError(there_is_no("recipe", name, ["all", *known]))
    return {name: known[name] for name in wanted}


def _split(values: str) -> list[str]:
    """At commas outside of brackets and quotes."""
    found = re.findall(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,])+""", values)
    return [value.strip() for value in found]


def plan(grid: Grid) -> list[Planned]:
    """Every run of a grid, composed.

    Raises:
        ValueError: A configuration cannot work.
    """
    planned = []
    for values in grid.points():
        arm = Arm(values=values)
        for seed in range(grid.seeds):
            words = [f"{key}={value}" for key, value in values.items()]
            words += [f"{key}={seed}" for key in SEEDS] if grid.seeds > 1 else []
            overrides = [*grid.rest, *words]
            planned.append(Planned(arm, words, overrides, load_config(Config, overrides)))
    return planned


def run(planned: Sequence[Planned], name: str) -> list[Arm]:
    """Run them one after the other; what fails is written down and stops no other."""
    for number, point in enumerate(planned, 1):
        print(f"\n{name} {number} of {len(planned)}: {' '.join(point.words)}", flush=True)
        try:
            results = run_all.results_of(point.config, point.overrides)
        except (ValueError, OSError) as error:
            point.arm.failures.append(redacted(str(error)))
            print(f"error: {redacted(str(error))}", file=sys.stderr, flush=True)
            continue
        point.arm.failures.extend(f"{r.name}: {redacted(r.error)}" for r in results if r.action == "failed")
        if scores := scores_of(results):
            point.arm.scores.append(scores)
    return list({id(point.arm): point.arm for point in planned}.values())


def scores_of(results: Sequence[StageResult]) -> dict[str, Score]:
    """The scores of all evaluations by name, one that two of them have with its stage.

    A name does not say the scale of guidance, which may be what is varied.
    """
    found: dict[str, Score] = {}
    for result in results:
        if result.artifact is not None and result.artifact.kind in EVALUATIONS:
            for score in Evaluation.read(result.artifact).scores:
                name = re.sub(r", guidance [\d.]+(?=$|, )", "", score.name)
                name = name if name not in found else f"{name} ({result.name})"
                found[name] = replace(score, name=name)
    return found


def write(grid: Grid, arms: Sequence[Arm]) -> None:
    """Write the page, its picture and its values."""
    keys = list(grid.over)
    drawn = chart(arms, keys)
    with file_errors(str(grid.out)):
        grid.out.parent.mkdir(parents=True, exist_ok=True)
        grid.out.write_text(render_sweep(arms, keys, grid.seeds, drawn))
        grid.out.with_suffix(".json").write_text(record(arms))
        if drawn is not None:
            drawn.save(grid.out.with_suffix(".webp"), "WEBP", lossless=True)


def show(arms: Sequence[Arm]) -> None:
    """Print the headline scores, a line for each point."""
    lines = [line for line in lines_of(arms) if line.score.headline] or lines_of(arms)
    for number, arm in enumerate(arms):
        print(f"\n{arm.label}")
        for line in lines:
            cell = line.cells[number]
            if cell.mean is not None:
                told = "" if cell.resolved is not False else "   not resolved"
                told = (
                    f"   {line.score.show(cell.low)} to {line.score.show(cell.high)}{told}"
                    if cell.high > cell.low
                    else told
                )
                print(f"  {line.score.measured:<60} {line.score.show(cell.mean):>12}{told}")


def write_index(folder: Path) -> None:
    """Write README.md over all recipes whose values lie in a folder."""
    known = recipes()
    with file_errors(str(folder)):
        found = {
            name: read(path.read_text()) for name in known if (path := folder / f"{name}.json").is_file()
        }
        (folder / "README.md").write_text(page(known, found))


def main(arguments: list[str]) -> int:
    """The command line; 0, 1 if a run failed, 2 for wrong use."""
    failed = False
    try:
        grids, folder = parse(arguments)
        for grid, planned in [(grid, plan(grid)) for grid in grids]:  # all are composed before one runs
            arms = run(planned, grid.out.stem)
            write(grid, arms)
            if folder is not None:
                write_index(folder)
            show(arms)
            print(f"\n{len(arms)} configurations -> {grid.out}", flush=True)
            failed |= any(arm.failures for arm in arms)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    return int(failed)
