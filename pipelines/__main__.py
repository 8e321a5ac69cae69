"""The program's command line.

    python -m pipelines run [experiment=NAME] [until=STAGE] [key=value ...]     run what is not published yet
    python -m pipelines plan [format=table|mermaid|json] [key=value ...]        say what would run, and why
    python -m pipelines dry-run [rows=N] [key=value ...]                        what would filters remove
    python -m pipelines verify [root=URL]                                       compare files with digests
    python -m pipelines compare MODEL MODEL [out=FILE]                          put models side by side
    python -m pipelines promote [name=reptok] [root=URL]                        the candidate, if it is better
    python -m pipelines sweep over=KEY=A,B|recipe=NAME [seeds=2] [key=value ...] run grids, and compare
    python -m pipelines real [only=NAME] [release=FILE] [key=value ...]         real weights, as published?
    python -m pipelines purge root=URL opt_out=FILE [delete=true]               delete what opted out
    python -m pipelines gc root=URL [keep=NAME,...] [days=7] [delete=true]      delete what nothing refers to

`run_all.py`, `plan.py`, `dry_run.py` and `purge.py` are doors to the same commands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipelines import compare, dry_run, gc, plan, promote, purge, run_all, sweep
from pipelines.configuration.choices import there_is_no
from pipelines.real import command as real

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": run_all.main,
    "plan": plan.main,
    "dry-run": dry_run.main,
    "verify": lambda arguments: run_all.main([*arguments, "verify=true"]),
    "compare": compare.main,
    "promote": promote.main,
    "sweep": sweep.main,
    "real": real.main,
    "purge": purge.main,
    "gc": gc.main,
}


def main(arguments: list[str]) -> int:
    """Hand the rest of the command line to the command that it names; 2 for wrong use."""
    if arguments[:1] in ([], ["-h"], ["--help"]):
        print(__doc__)
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: {there_is_no('command', name, COMMANDS)}", file=sys.stderr)
        return 2
    return COMMANDS[name](rest)


if __name__ == "__main__":
    run_all.command(lambda: main(sys.argv[1:]))
