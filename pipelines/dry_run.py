"""What would these thresholds remove? Judges a URL list and prints the answer; writes nothing.

    python pipelines/dry_run.py [experiment=demo] [rows=N] [data.select_urls.filters.min_size=256 ...]

`rows=N` judges the first N rows of the list alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
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
    """The drop report of `data.select_urls` over its sources, or over the demo's own list."""
    from pipelines.stages.select_urls import Tables, surveyed
    from pipelines.urls.drop_report import as_json

    select = config.data.select_urls
    with tempfile.TemporaryDirectory(prefix="reptok-") as folder:
        tables: Any = Tables(select)
        if not select.sources:
            if config.data.web is None:
                raise ValueError("there is no list: data.select_urls.sources names no file")
            tables = _made(config.data.web)
        return as_json(surveyed(select, tables, Path(folder, "hashes"), most_rows))


def _made(web: Any) -> Any:
    """The demo's list, made in memory."""
    from examples.photographs.coyo import make_corpus

    def tables(only: Iterable[str] | None) -> Iterator[tuple[str, Any]]:
        yield "coyo.parquet", make_corpus(web).table

    return tables


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
