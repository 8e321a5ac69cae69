"""Run a grid of configurations in one root, share what they have in common, and end in one picture and table.

    python -m pipelines sweep over=KEY=A,B[,C] [over=KEY2=D,E] [seeds=2] [out=sweep.html] [key=value ...]

Each value of the first key, with each of the second, is a run of the workflow that the other words describe,
once for each seed of the trainings. What is published is not made again: the same command goes on where it
ended. Beside the page lie its picture (.webp) and all values (.json). One that fails stops no other.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import run_all
from pipelines.configuration.compose import load_config
from pipelines.dag.redaction import redacted
from pipelines.dag.stage import StageResult
from pipelines.dag.writing import file_errors
from pipelines.evaluation.results import Evaluation, Score
from pipelines.reports.summary import EVALUATIONS
from pipelines.reports.sweep import Arm, chart, lines_of, record, render_sweep

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

    over: dict[str, list[str]]
    seeds: int
    out: Path
    rest: list[str]

    def points(self) -> Iterator[dict[str, str]]:
        """One value of each key."""
        for values in itertools.product(*self.over.values()):
            yield dict(zip(self.over, values, strict=True))


def parse(arguments: Sequence[str]) -> Grid:
    """Read the command line.

    Raises:
        ValueError: No key, too many, or fewer than two values of one.
    """
    over: dict[str, list[str]] = {}
    seeds, out, rest = 1, "sweep.html", []
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
        elif name == "seeds":
            if not value.isdecimal() or not int(value):
                raise ValueError(f"seeds={value}: how many, 1 or more?")
            seeds = int(value)
        elif name == "out":
            out = value
        else:
            rest.append(argument)
    if not 1 <= len(over) <= KEYS:
        raise ValueError("what is to be varied? over=KEY=A,B, once or twice")
    if clash := {word.partition("=")[0] for word in rest} & {*over, *(SEEDS if seeds > 1 else ())}:
        raise ValueError(f"{', '.join(sorted(clash))} is varied: leave it out of the rest")
    return Grid(over, seeds, Path(out), rest)


def _split(values: str) -> list[str]:
    """At commas outside of brackets and quotes."""
    found = re.findall(r"""(?:\[[^\]]*\]|\{[^}]*\}|"[^"]*"|'[^']*'|[^,])+""", values)
    return [value.strip() for value in found]


def run(grid: Grid) -> list[Arm]:
    """Run every point and seed; every configuration is composed before the first one starts.

    Raises:
        ValueError: A configuration cannot work.
    """
    from pipelines.configuration.schema import Config

    arms = [Arm(values=values) for values in grid.points()]
    planned = []
    for arm in arms:
        for seed in range(grid.seeds):
            words = [f"{key}={value}" for key, value in arm.values.items()]
            words += [f"{key}={seed}" for key in SEEDS] if grid.seeds > 1 else []
            overrides = [*grid.rest, *words]
            planned.append((arm, words, overrides, load_config(Config, overrides)))
    for number, (arm, words, overrides, config) in enumerate(planned, 1):
        print(f"\nsweep {number} of {len(planned)}: {' '.join(words)}", flush=True)
        try:
            results = run_all.results_of(config, overrides)
        except (ValueError, OSError) as error:
            arm.failures.append(redacted(str(error)))
            print(f"error: {redacted(str(error))}", file=sys.stderr, flush=True)
            continue
        arm.failures.extend(f"{r.name}: {redacted(r.error)}" for r in results if r.action == "failed")
        if scores := scores_of(results):
            arm.scores.append(scores)
    return arms


def scores_of(results: Sequence[StageResult]) -> dict[str, Score]:
    """The scores of all evaluations by name, one that two of them have with its stage."""
    found: dict[str, Score] = {}
    for result in results:
        if result.artifact is not None and result.artifact.kind in EVALUATIONS:
            for score in Evaluation.read(result.artifact).scores:
                name = score.name if score.name not in found else f"{score.name} ({result.name})"
                found[name] = score
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
                print(f"  {line.score.name:<50} {line.score.show(cell.mean):>12}{told}")


def main(arguments: list[str]) -> int:
    """The command line; 0, 1 if a run failed, 2 for wrong use."""
    try:
        grid = parse(arguments)
        arms = run(grid)
        write(grid, arms)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    show(arms)
    print(f"\n{len(arms)} configurations -> {grid.out}")
    return int(any(arm.failures for arm in arms))
