"""Stage: the scores of all weights that a training kept, over its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.results import Evaluation, Figure, save_figure
from reptok.bounds import Count
from reptok.metrics.protocols import Task

SCORES = "scores"


def of_step(name: str, step: int) -> str:
    """The name of a stage or artifact that is of one step."""
    return f"{name}_step_{step}"


@dataclass(frozen=True, kw_only=True)
class DrawCurveConfig:
    """Of which steps.

    Attributes:
        steps: whose weights were kept, ascending.
        end: the step of the published weights.
        task: whose training it was: the generator's of samples, the tokenizer's of reconstructions.
    """

    steps: tuple[Count, ...]
    end: Count
    task: Task = "generation"


class DrawCurve(Stage):
    """One picture, one page, and in the tracking server every score with its step.

    curve.webp  curve.html  curve.json   see `pipelines/reports/sweep.py`
    """

    name, output = "draw_curve", "curve"
    modules = ("pipelines.reports.sweep",)
    config: DrawCurveConfig

    def __init__(self, config: DrawCurveConfig):
        self.inputs = (*(of_step(SCORES, step) for step in config.steps), SCORES)
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.reports.sweep import Arm, chart, record, render_sweep

        steps, arms = [*self.config.steps, self.config.end], []
        evaluations = [Evaluation.read(inputs[kind]) for kind in self.inputs]
        for step, found in zip(steps, evaluations, strict=True):
            out.log.metrics(found.metrics, step)
            scores = {score.name: score for score in found.scores}
            arms.append(Arm(values={"step": str(step)}, scores=[scores]))
        part = "generator" if self.config.task == "generation" else "tokenizer"
        title = f"Quality over the steps of the {part}'s training"
        figures = []
        if (drawn := chart(arms, ["step"])) is not None:
            caption = "By the averaged weights of each step, all scored by the same protocol."
            figures.append(save_figure(out, drawn, Figure(file="curve.webp", title=title, caption=caption)))
        out.write_bytes("curve.html", render_sweep(arms, ["step"], 1, drawn).encode())
        out.write_bytes("curve.json", record(arms).encode())
        Evaluation(
            title=title,
            lead=f"{len(steps)} sets of averaged weights, the last of them the published ones.",
            scores=[
                replace(score, baselines=_before(score.name, steps, evaluations))
                for score in evaluations[-1].scores
            ],
            figures=figures,
            notes=[],
            metrics=evaluations[-1].metrics,
        ).write(out)
        return {"checkpoints": float(len(steps))}


def _before(name: str, steps: list[int], evaluations: list[Evaluation]) -> dict[str, float]:
    """A score of the steps before the end."""
    return {
        f"step {step}": score.value
        for step, found in zip(steps[:-1], evaluations[:-1], strict=True)
        for score in found.scores
        if score.name == name
    }
