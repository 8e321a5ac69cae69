"""What a failed job says: every cause once, with the shards that it struck."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

SHOWN = 8  # causes in a message, and shards of one cause
LOST = "Ray lost it"
"""The cause of a shard that never came back."""


def report(lost: Sequence[tuple[str, str]], total: int) -> str:
    """The message of a failed job.

    Args:
        lost: name and cause of each shard that failed.
        total: shards of the job.
    """
    causes: dict[str, list[str]] = {}
    for name, cause in lost:
        causes.setdefault(cause, []).append(name)
    lines = [f"{len(lost)} of {total} shards failed, the others are kept:"]
    for cause, names in list(causes.items())[:SHOWN]:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"{', '.join(names[:SHOWN])}{more}: {cause}")
    if len(causes) > SHOWN:
        lines.append(f"and {len(causes) - SHOWN} more causes")
    return "\n  ".join(lines)


def described(error: BaseException) -> str:
    """Type, message, file and line of the innermost frame, and the notes; of a group, its first member's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"
    return " ".join([f"{type(error).__name__}: {error} ({place})", *getattr(error, "__notes__", ())])
