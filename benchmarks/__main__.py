"""`make bench` prints one table; `make bench ARGS="decoder_step"` measures only what is named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from rich.console import Console
from rich.markup import escape
from rich.table import Table

BENCHES = (
    "download",
    "download_start",
    "blocks",
    "caption_feed",
    "loader",
    "feeding",
    "loader_memory",
    "encoder_step",
    "decoder_step",
    "tokenizer_step",
    "generator_step",
    "mixer_step",
    "stored_bytes",
    "precompute",
    "stage_start",
    "rerun",
    "scale",
    "requests",
    "resume",
    "chain",
    "selection",
    "ray_train",
    "checkpoint",
    "fid_statistics",
)


def main(names: Sequence[str]) -> int:
    """Measure, one after the other, and print; returns 2 for an unknown name."""
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"error: no benchmark {unknown[0]!r}; choose from {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    table = Table(box=None, header_style="bold")
    for column in ("what", "CPU-s", "peer", "its CPU-s", "equal, counted"):
        table.add_column(column, justify="right" if column.endswith("CPU-s") else "left")
    table.add_column("ratio", justify="right", no_wrap=True)
    for name in names or BENCHES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        found = import_module(f"benchmarks.{name}").run()
        table.add_row(
            escape(found.name),  # the [cls] of a name is no markup
            f"{found.ours:.3f}",
            escape(found.peer),
            f"{found.theirs:.3f}",
            escape(found.checked),
            f"{found.ratio:.2f} x",
        )
    Console(width=140 if sys.stdout.isatty() else 120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
