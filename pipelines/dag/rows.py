"""What one row of untrusted data raises stays its own, and a fault of ours is not passed off as a row's.

A job knows many ways in which a row may fail and gives each its word. This is for the others: the row gets
the word `internal_<Type>` and stands in the log, few of these are borne, and more fail the shard.
"""

from __future__ import annotations

import errno
import re
import sys
import traceback
from dataclasses import dataclass, field

from pipelines.dag.redaction import redacted

INTERNAL = "internal_"
BORNE, BORNE_PART = 3, 0.01
"""Rows of a shard that may fail unforeseen: so many, or this part of them if that is more."""

SHOWN = 5  # rows in the message of a failed shard
_CHARACTERS = 300

_OUT_OF = frozenset(
    {
        errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOBUFS,  # memory, files and sockets of this machine
        errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO,  # its storage
    }
)  # fmt: skip


class RowsFailed(RuntimeError):
    """More rows of a shard failed unforeseen than chance or malice explain: look for a fault of ours."""


def is_ours(error: BaseException | None) -> bool:
    """Whether this machine or its installation is to blame, and no row: memory, storage, a missing module."""
    return isinstance(error, MemoryError | ImportError) or (
        isinstance(error, OSError) and error.errno in _OUT_OF
    )


def is_internal(reason: str) -> bool:
    """Whether a reason is one that `RowErrors` gave."""
    return reason.startswith(INTERNAL) and reason.removeprefix(INTERNAL).isidentifier()


def drop_reason(reason: str | None, default: str) -> str:
    """Return the stats key that counts a row dropped for `reason`."""
    word = re.sub(r"[^a-z0-9]+", "_", (reason or default).lower()).strip("_")
    return f"dropped_{word[:40] or default}"


@dataclass
class RowErrors:
    """The exceptions that nobody foresaw, of one shard's rows.

    Only the row's own work stands in the `try` that leads here: never the reading or writing of our storage.

    Attributes:
        shard: its name.
        rows: how many it has.
        found: a line for each row that failed so far.
    """

    shard: str
    rows: int
    found: list[str] = field(default_factory=list)

    def reason(self, row: str, error: Exception) -> str:
        """The word for what a row raised; logs it with its traceback.

        Args:
            row: what identifies the row: its URL, path or key.
            error: what its work raised.

        Raises:
            RowsFailed: these are more such rows than are borne.
            Exception: `error` itself, with a note of the row, if it is ours.
        """
        if is_ours(error):
            error.add_note(f"at row {_shown(row)} of {self.shard}")
            raise error
        line = f"{_shown(row)}: {type(error).__name__}: {_shown(str(error))}"
        trace = "".join(traceback.format_tb(error.__traceback__))
        said = redacted(f"  {self.shard}: an unforeseen failure of {line}\n{trace}")
        print(said, file=sys.stderr, flush=True)
        self.found.append(line)
        borne = max(BORNE, int(BORNE_PART * self.rows))
        if len(self.found) > borne:
            raise RowsFailed(
                f"more than {borne} of the {self.rows} rows of {self.shard} failed for no known reason, "
                f"which is a fault of this program or machine: {'; '.join(self.found[:SHOWN])}"
            ) from error
        return INTERNAL + type(error).__name__


def _shown(text: str) -> str:
    """Text of strangers for a log: cut, and without characters that a terminal or a log's reader obeys."""
    return repr(text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]}...")
