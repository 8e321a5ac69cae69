"""The last screen of a run: what every stage did, the scores that matter, and where to look."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.dag.progress import duration
from pipelines.dag.redaction import redacted
from pipelines.dag.reference import HOME
from pipelines.dag.stage import StageResult
from pipelines.dag.storage import open_folder
from pipelines.dag.tracking import TrackingConfig
from pipelines.evaluation.results import REPORTS, Evaluation, Score
from reptok.terminal import visible

EVALUATIONS = (*REPORTS, "scores")
SHOWN = (*EVALUATIONS, "curve")
COLOURS = {"run": "green", "resume": "green", "skip": "dim", "failed": "bold red", "blocked": "yellow"}


def summarise(results: Sequence[StageResult], console: Console | None = None, curves: str = "") -> None:
    """Print the stages, the scores and the way to the report.

    Args:
        results: what the runner returned.
        console: where to print; standard output by default.
        curves: where the curves are to be seen; "" where nothing was recorded.
    """
    console = console or Console(highlight=False)
    console.print(_stages(results))
    for evaluation in _evaluations(results):
        console.print(_scores(evaluation))
        for note in evaluation.notes:
            console.print(f"[dim]{escape(visible(note))}[/]")
    for result in results:
        if result.error:
            console.print(f"[bold red]{escape(result.name)}[/]: {escape(result.error)}")
    model = next((r.artifact for r in results if r.artifact and r.artifact.kind == "model"), None)
    if model is not None:
        report = model.url_of("report.html")
        console.print(f"\nReport:   {escape(report)}", soft_wrap=True)
        console.print(f"Model:    {escape(model.url)}", soft_wrap=True)
        if curves:
            console.print(f"Curves:   [bold]{escape(curves)}[/]", soft_wrap=True)


def markdown(results: Sequence[StageResult]) -> str:
    """The scores of a run, its report and its model, as a page shows them; "" without any of them."""
    lines = []
    for evaluation in _evaluations(results):
        lines += [f"### {evaluation.title}", "", "| measure | this run | beside it |", "|---|---|---|"]
        for score in evaluation.scores:
            value = f"**{score.show()}** {score.certainty}".strip()
            lines.append(f"| {score.name} | {value} | {_beside(score)} |".replace("\n", " "))
        lines.append("")
    for result in results:
        if result.artifact is not None and result.artifact.kind == "model":
            lines += [
                f"Report: `{result.artifact.url_of('report.html')}`",
                "",
                f"Model: `{result.artifact.url}`",
            ]
    return redacted("\n".join(lines))


def _stages(results: Sequence[StageResult]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name, justify in (("stage", "left"), ("", "left"), ("time", "right"), ("result", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for result in results:
        colour = COLOURS.get(result.action, "")
        action = f"[{colour}]{escape(result.action)}[/]" if colour else escape(result.action)
        time = duration(result.seconds) if result.seconds else ""
        table.add_row(escape(result.name), action, time, escape(describe(result.stats)))
    total = sum(result.seconds for result in results)
    table.add_row("", "", f"[bold]{duration(total)}[/]", "of work; stages overlap where they can")
    return table


def _evaluations(results: Sequence[StageResult]) -> Iterator[Evaluation]:
    for result in results:
        if result.artifact is not None and result.artifact.kind in SHOWN:
            yield Evaluation.read(result.artifact)


def _scores(evaluation: Evaluation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", title_justify="left", title_style="bold")
    table.title = "\n" + escape(evaluation.title)
    table.add_column("measure")
    table.add_column("this run", justify="right", style="bold")
    table.add_column("beside it")
    for score in evaluation.scores:
        value = (
            f"{score.show()} [dim]{escape(score.certainty)}[/]" if score.certainty else escape(score.show())
        )
        table.add_row(escape(score.name), value, escape(_beside(score)))
    return table


def _beside(score: Score) -> str:
    return ", ".join(f"{name} {score.show(value)}" for name, value in score.baselines.items())


def describe(stats: Mapping[str, float]) -> str:
    """A stage's result in a few words: its rows, or its first figures."""
    if "rows_in" in stats:
        dropped = {
            name.removeprefix("dropped_").replace("_", " "): value
            for name, value in sorted(stats.items(), key=lambda item: -item[1])
            if name.startswith("dropped_") and value
        }
        text = f"{stats['rows_in']:,.0f} rows in, {stats.get('rows_out', 0):,.0f} out"
        if dropped:
            text += f", {sum(dropped.values()):,.0f} dropped: "
            text += ", ".join(f"{value:,.0f} {reason}" for reason, value in list(dropped.items())[:4])
            text += ", ..." if len(dropped) > 4 else ""
        return text
    for loss in ("val_loss", "train_loss", "val/loss"):
        if loss in stats:
            return f"{loss.replace('_', ' ').replace('/', ' ')} {stats[loss]:.4f}"
    shown = list(stats.items())[:2]
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,.{0 if abs(value) >= 100 else 3}f}" for name, value in shown
    )


def make_command(root: str) -> str:
    """What a user types to see the runs of this store."""
    if open_folder(root).url == str(HOME / "runs"):
        return "make ui"
    argument = shlex.quote(f"root={open_folder(root).url}").replace("$", "$$")  # make reads a $ as its own
    return f"make ui {shlex.quote(f'ARGS={argument}')}"


def shown_at(tracking: TrackingConfig, root: str) -> str:
    """Where a user sees the runs of an invocation; "" where none were recorded."""
    server = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if not tracking.enabled:
        return ""
    return redacted(server) if server else make_command(root)
