"""The first thing to run on a machine with a hub and a GPU: real weights, beside their publishers' values.

    python -m pipelines real [out=real] [device=cuda|cpu] [only=NAME,...] [release=FILE] [key=value ...]

Loads every network as the product does, compares what it gives with what its publisher states, reconstructs
and generates pictures, and trains 200 steps. Each result is written as soon as it is there, to real.json and
real.html; what fails ends nothing else. Every network may be a folder: dinov2=FOLDER vae=FOLDER ...

Exit status: 0 everything passed or was skipped, 1 otherwise, 2 wrong use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.dag.redaction import redacted
from pipelines.dag.writing import file_errors
from pipelines.real.settings import Settings, parse

if TYPE_CHECKING:
    from pipelines.real.check import Check, Result


def main(arguments: Sequence[str]) -> int:
    """The command line; returns the exit status."""
    try:
        settings = parse(arguments)
        with file_errors(settings.out):
            results = run(settings)
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    from pipelines.real.check import GOOD

    return 0 if all(result.outcome in GOOD for result in results) else 1


def run(settings: Settings) -> list[Result]:
    """Run all checks, or those that are asked for.

    Raises:
        ValueError: There is no GPU, or no such check.
        OSError: The results or the stated values cannot be written or read.
    """
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "real needs a GPU that torch sees, of 16 GB or more, and a hub within reach; device=cpu runs it "
            "without one, where the training's steps take hours (steps=2 shortens them)"
        )
    torch.backends.cudnn.allow_tf32 = False  # ten bits of a mantissa are not what publishers compare
    torch.backends.cuda.matmul.allow_tf32 = False
    from pipelines.real.check import run_check
    from pipelines.real.material import Material
    from pipelines.real.page import PAGE, line, write
    from pipelines.real.stated import stated_values

    stated = stated_values(settings.stated)
    material = Material(settings, torch.device(settings.device))
    chosen = select(all_checks(settings), settings.only)
    material.out.mkdir(parents=True, exist_ok=True)
    waiting = [name for check in chosen for name in check.rows]
    results: list[Result] = []
    write(results, waiting, material)
    for number, check in enumerate(chosen, 1):
        print(f"{number} of {len(chosen)}: {check.what} ({redacted(check.place)})", flush=True)
        for result in run_check(check, stated, material):
            results.append(result)
            waiting.remove(result.name)
            print(f"  {line(result)}", flush=True)
            write(results, waiting, material)
    print(f"{material.out / PAGE}", flush=True)
    return results


def all_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which they run: what is small and exact first."""
    from pipelines.real import autoencoder, captioner, clip, encoders, release, training

    rooms = (encoders, clip, autoencoder, captioner, release, training)
    return [check for room in rooms for check in room.checks(settings)]


def select(checks: Sequence[Check], only: str) -> list[Check]:
    """The checks with a row of those names; all without names.

    Raises:
        ValueError: There is no such row.
    """
    names = {name.strip() for name in only.split(",") if name.strip()}
    known = [name for check in checks for name in check.rows]
    if unknown := names - set(known):
        raise ValueError(f"there is no check {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    return [check for check in checks if not names or names & check.rows.keys()]
