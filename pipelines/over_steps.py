"""The weights that a training kept on its way, each scored by the stages that score its end, as a curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pipelines.dag.reference import refer
from pipelines.dag.stage import Stage
from pipelines.stages.draw_curve import DrawCurve, DrawCurveConfig, of_step
from reptok.kept import Kept, kept
from reptok.metrics.protocols import Task


def over_steps(model: str, task: Task, scored: Callable[[int], Sequence[Stage]]) -> list[Stage]:
    """The stages that score every step, and the one that draws them with the end.

    Args:
        model: a published model whose training kept weights.
        task: samples are of the generator's steps, reconstructions of the tokenizer's.
        scored: the stages that score a step.

    Raises:
        ValueError: it is no folder, or no weights were kept.
    """
    found = _kept(model, "generator" if task == "generation" else "tokenizer")
    stages = [stage for step in found.steps for stage in _renamed(scored(step), step)]
    return [*stages, DrawCurve(DrawCurveConfig(steps=found.steps, end=found.end, task=task))]


def _kept(model: str, part: str) -> Kept:
    folder = refer(model, "model").folder
    if folder is None:
        raise ValueError(f"kept=true looks into the folder of a model, and model={model} is none here")
    try:
        return kept(folder / part if (folder / part).is_dir() else folder)
    except FileNotFoundError as error:
        raise ValueError(f"kept=true: {error}") from error


def _renamed(stages: Sequence[Stage], step: int) -> Iterator[Stage]:
    """The same stages under names of the step, reading what each other makes of it."""
    made = {stage.output for stage in stages}
    for stage in stages:
        own = {kind: of_step(kind, step) for kind in stage.inputs if kind in made}
        renamed = stage.reading(**own)
        renamed.name, renamed.output = of_step(stage.name, step), of_step(stage.output, step)
        renamed.scored = False  # a workflow is compared by its end
        yield renamed
