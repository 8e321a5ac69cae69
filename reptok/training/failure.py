"""A failure that comes again however often a training begins anew: written down, so that it does not.

Launchers begin a training again when a process of it dies. That helps against a machine that breaks, and
wastes hours on a batch that cannot be read or a loss that is not finite.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reptok.training.shared import Shared

FAILURE = "failure.json"
REPEATABLE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError,
)  # fmt: skip
"""What the same weights and samples raise again (`NonFiniteError` among them); not what devices, networks,
memory and disks raise: that is RuntimeError, OSError and MemoryError."""


class RepeatedFailure(RuntimeError):
    """The training failed in a way that no new beginning mends."""


def failure_file(folder: Path) -> Path:
    """While this file exists in a training's folder, no process of it begins."""
    return folder / FAILURE


@contextmanager
def written_down(folder: Path) -> Iterator[None]:
    """Surround a training process; a repeatable failure is written down, and raised on."""
    try:
        yield
    except REPEATABLE as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        said = {"error": f"{type(error).__name__}: {error} ({place})"}
        with suppress(OSError):  # then it is tried again
            folder.mkdir(parents=True, exist_ok=True)
            draft = failure_file(folder).with_suffix(".partial")
            draft.write_text(json.dumps(said))
            draft.rename(failure_file(folder))
            Shared.of(folder).push(FAILURE)
        raise


def forget_failure(folder: Path) -> None:
    """Let the training begin again."""
    Shared.of(folder).remove(FAILURE)


def check_failure(folder: Path) -> None:
    """Raise what was written down.

    Raises:
        RepeatedFailure: Something was.
    """
    Shared.of(folder).pull(FAILURE)
    try:
        said = json.loads(failure_file(folder).read_text())["error"]
    except FileNotFoundError:
        return
    raise RepeatedFailure(f"{said}; as this would come again, the training was not begun anew") from None
