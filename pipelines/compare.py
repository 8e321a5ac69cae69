"""Put published models side by side on one page: scores, configuration, losses, pictures.

    python -m pipelines compare MODEL MODEL [...] [out=comparison.html]

MODEL is the folder of a published model, in the root that it was made in, or a root: its newest model.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.dag.redaction import redacted
from pipelines.dag.writing import file_errors

OUT = "comparison.html"


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status: 0, or 2 for wrong use."""
    out, places = OUT, []
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and key == "out":
            out = value
        elif separator and key.isidentifier():
            print(f"error: compare takes models and out=FILE, and no {key}=", file=sys.stderr)
            return 2
        else:
            places.append(argument)
    try:
        from pipelines.reports.comparison import find_runs, render_comparison

        page = render_comparison(find_runs(places))
        with file_errors(out):
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            Path(out).write_text(page)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    print(f"{len(places)} models -> {out}")
    return 0
