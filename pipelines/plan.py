"""Show what `run_all.py` would do, why, and what it would take on a cluster that `estimate` describes.

Starts nothing.

python pipelines/plan.py [format=table|mermaid|json] [experiment=NAME] [until=STAGE] [key=value ...]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

from pipelines.configuration.compose import load_config  # noqa: E402
from pipelines.configuration.costs import Estimate, amount, estimate, sources, totals  # noqa: E402
from pipelines.dag.planner import PlannedStage, plan  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402

COLOURS = {"run": "yellow", "resume": "cyan", "skip": "green"}
FILLS = {"run": "#ffe08a", "resume": "#9fe3ff", "skip": "#b7e4c7"}


def as_json(planned: Sequence[PlannedStage], estimates: Mapping[str, Estimate] | None = None) -> str:
    """`{"stages": [{"name", "action", "reason", "fingerprint", "inputs": {kind: fingerprint}}]}`.

    With estimates, a stage that has one has it as `estimate`, with the fields of `costs.Estimate`.
    """
    stages: list[dict[str, Any]] = [
        {
            "name": p.stage.name,
            "action": p.action,
            "reason": p.reason,
            "fingerprint": p.artifact.fingerprint,
            "inputs": {kind: artifact.fingerprint for kind, artifact in p.inputs.items()},
        }
        for p in planned
    ]
    for stage in stages:
        if estimates and stage["name"] in estimates:
            stage["estimate"] = vars(estimates[stage["name"]])
    return json.dumps({"stages": stages}, indent=2)


def as_mermaid(planned: Sequence[PlannedStage]) -> str:
    """A Mermaid flowchart: stages as nodes in the colour of their action, artifacts on the edges."""
    makers = {p.stage.output: p.stage.name for p in planned}
    lines = ["flowchart TD"]
    for p in planned:
        lines.append(f'  {p.stage.name}["{p.stage.name}<br/>{p.action}"]:::{p.action}')
        lines += [f"  {makers[kind]} -- {kind} --> {p.stage.name}" for kind in p.inputs if kind in makers]
    lines += [f"  classDef {action} fill:{fill},color:#222" for action, fill in FILLS.items()]
    return "\n".join(lines)


def print_table(planned: Sequence[PlannedStage], estimates: Mapping[str, Estimate] | None = None) -> None:
    """Stage, action, reason, inputs, output and fingerprint, for a terminal; and what it would take."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("stage", "action", "why", "inputs", "makes", "fingerprint"):
        table.add_column(column, overflow="fold")
    for column in (
        ("rows", "on", "hours", "GPU-hours", "reads", "stores", "cost", "bound by") if estimates else ()
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for p in planned:
        action = f"[{COLOURS[p.action]}]{p.action}[/]"
        inputs = ", ".join(p.inputs) or "-"
        cells = (p.stage.name, action, escape(p.reason), inputs, p.stage.output, p.artifact.fingerprint)
        table.add_row(*cells, *_estimate_cells(estimates.get(p.stage.name)) if estimates else ())
    Console(width=None if sys.stdout.isatty() else 220 if estimates else 160).print(table)


def _estimate_cells(found: Estimate | None) -> tuple[str, ...]:
    if found is None:
        return ("",) * 8
    units = f"{found.units:,g} {'GPUs' if found.gpu_hours else 'cores'}"
    return (
        f"{found.rows:,.0f}", units, f"{found.hours:,.2f}", f"{found.gpu_hours:,.1f}",
        amount(found.bytes_read), amount(found.bytes_stored), f"{found.cost:,.0f}", found.bound,
    )  # fmt: skip


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    from pipelines import workflows
    from pipelines.configuration.schema import Config

    chosen = [a.removeprefix("format=") for a in arguments if a.startswith("format=")]
    style = chosen[-1] if chosen else "table"
    try:
        if style not in ("table", "mermaid", "json"):
            raise ValueError(f"format is table, mermaid or json, not {style!r}")
        config = load_config(Config, [a for a in arguments if not a.startswith("format=")])
        stages = workflows.build(config)
        planned = plan(stages, config.root, until=config.until, only=config.only, force=config.force)
        estimates = estimate(planned, config.estimate) if config.estimate else None
        remarks = workflows.remarks(config)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    if style == "table":
        print_table(planned, estimates)
        if config.estimate and estimates:
            print(totals(planned, estimates, config.estimate, config.chain))
            print("\n".join(map(redacted, sources(estimates, config.estimate))))
        print("\n".join(map(redacted, remarks)), end="\n" if remarks else "")
    else:
        print(as_json(planned, estimates) if style == "json" else as_mermaid(planned))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
