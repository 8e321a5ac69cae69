"""What would these thresholds remove? Judges a URL list and prints the answer; writes nothing.

    python pipelines/dry_run.py [experiment=NAME] [rows=N] [data.select_urls.filters.min_size=256 ...]

`rows=N` judges the first N rows of the list alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

from pipelines.configuration.compose import load_config  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402

if TYPE_CHECKING:
    from pipelines.configuration.schema import Config


def judge(config: Config, most_rows: int | None = None) -> dict[str, Any]:
    """The drop report of `data.select_urls` over its sources, those of installed plug-ins included."""
    from pipelines import registry
    from pipelines.stages.select_urls import made, scanned, streamed
    from pipelines.urls.drop_report import as_json

    select = config.data.select_urls
    source = registry.chosen(config.extras)
    with tempfile.TemporaryDirectory(prefix="reptok-") as folder:
        tables: Any = None
        if made(select):  # by a stage that may not have run: judged as it would be
            if source is None:
                raise ValueError(f"data.select_urls.sources={list(select.sources)}: a stage makes that list")
            tables = lambda only: source.tables(config.extras[source.key])  # noqa: E731
        elif not select.sources:
            raise ValueError("there is no list: data.select_urls.sources names no file")
        else:
            tables = streamed(select)
        return as_json(scanned(select, tables, Path(folder, "hashes"), most_rows))


def print_report(report: Mapping[str, Any]) -> None:
    """A table for a terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for column in ("rule", "threshold", "removes alone", "in order"):
        table.add_column(column, justify="left" if column == "rule" else "right")
    rows = max(1, report["rows_in"])
    for rule in report["rules"]:
        table.add_row(
            escape(rule["rule"]),
            "" if rule["threshold"] is None else escape(str(rule["threshold"])),
            f"{rule['alone']:,} ({rule['alone'] / rows:.1%})",
            f"{rule['dropped']:,} ({rule['dropped'] / rows:.1%})",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"{report['rows_out']:,} of {report['rows_in']:,} rows would stay")


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    from pipelines.configuration.schema import Config

    rows = [argument.removeprefix("rows=") for argument in arguments if argument.startswith("rows=")]
    try:
        config = load_config(Config, [a for a in arguments if not a.startswith("rows=")])
        print_report(judge(config, int(rows[-1]) if rows else None))
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    sys.exit(main(sys.argv[1:]))
