"""Delete what was downloaded from those who opted out, and what was made of it.

    python pipelines/purge.py root=runs opt_out=opt_out.txt [delete=true] [tracking.uri=...]

The list has a URL or a host per line. Without `delete=true` it says what it would do. It deletes whole
artifacts: those with a row of such a URL, and whatever was made from them, unfinished and superseded ones
included; and the pictures and reports of their runs in MLflow (at `tracking.uri`, MLFLOW_TRACKING_URI or in
the store). A published model loses its pictures and its report, and keeps its weights. Trained weights hold
no pictures and stay: they are named, and it is yours to decide. A run that is given
the same list as `data.select_urls.opt_out` makes the rest without those rows, and fetches, captions and
encodes nothing anew while the old artifacts are there: run it before you purge.

With `delete=true` it refuses while a workflow runs on the store, which might read what goes or make it again
from what it has read; one that begins meanwhile waits.

Links are not followed, and what cannot be read is named and passed over.
Exit status: 0 all was looked at, 1 something could not be, 2 wrong use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

from pipelines.dag.embedded_tracking import database  # noqa: E402
from pipelines.dag.presence import alone, running, workflows  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402
from pipelines.dag.storage import Folder  # noqa: E402
from pipelines.dag.tracking import TrackingConfig, tracking_uri  # noqa: E402
from pipelines.purging.delete import delete, forget_copies, trash_of  # noqa: E402
from pipelines.purging.find import MODEL, WEIGHTS, Stored, find  # noqa: E402
from pipelines.purging.pictures import pictures_of, remove_pictures  # noqa: E402
from pipelines.stages.select_urls import read_lines  # noqa: E402
from pipelines.urls.opt_out import OptOut  # noqa: E402
from reptok.terminal import visible  # noqa: E402


def purge(root: str, opt_out: str, deleting: bool, uri: str | None = None) -> list[str]:
    """Name, and if `deleting` delete, what is of those who opted out; returns what could not be looked at.

    Raises:
        ValueError: There is no such store, or a workflow runs there while this is to delete.
    """
    trash, listed = trash_of(root), OptOut(read_lines(opt_out))
    if deleting:
        with alone(root) as check:
            return _purge(root, listed, uri, trash, check)
    if running_there := workflows(root):
        print(f"note: {running(running_there)}; delete=true refuses until it has ended")
    return _purge(root, listed, uri, trash, None)


def _purge(
    root: str, listed: OptOut, uri: str | None, trash: Folder, check: Callable[[], None] | None
) -> list[str]:
    """Look, and delete if nobody else is there, which `check` makes sure of."""
    deleting = check is not None
    found = find(root, listed)
    runs = _purge_runs({stored.fingerprint for stored in found.tainted}, root, uri, deleting, found.problems)
    for stored in found.tainted:
        print(visible(_described(stored)))
    if check:  # what tells of the others goes last: a purge that ends early is taken up where it ended
        trash.remove()
        for stored in reversed(found.tainted):
            check()
            _forget(stored, trash)
    todo = bool(runs or [s for s in found.tainted if _deed(s) != "keep"])
    print(
        f"{len(found.tainted)} folders, files of {runs} runs"
        + ("; nothing was deleted yet: delete=true" if todo and not deleting else "")
    )
    return found.problems


def _deed(stored: Stored) -> str:
    if stored.artifact.kind == MODEL and stored.finished:
        return "strip" if pictures_of(stored.artifact) else "keep"
    return "keep" if stored.artifact.kind in WEIGHTS else "delete"


def _described(stored: Stored) -> str:
    place, deed = stored.artifact, _deed(stored)
    what = f"{stored.rows:,} rows" if stored.rows else "made from such rows"
    if stored.parents is None and not stored.finished and not stored.rows:
        what = "unfinished, and nothing says what it is made from"
    return f"{deed:<6} {place.kind:<20} {place.fingerprint}  {what}" + ", its pictures" * (deed == "strip")


def _forget(stored: Stored, trash: Folder) -> None:
    deed = _deed(stored)
    if deed == "strip":
        remove_pictures(stored.artifact)
        forget_copies(stored.artifact, stored.fingerprint)
    elif deed == "delete":
        delete(stored.artifact, stored.fingerprint, trash)


def _purge_runs(fingerprints: set[str], root: str, uri: str | None, delete: bool, problems: list[str]) -> int:
    """Treat the runs of these artifacts; returns how many have files that show something."""
    config = TrackingConfig(uri=uri)
    embedded = not (uri or os.environ.get("MLFLOW_TRACKING_URI"))
    if not fingerprints or (embedded and not database(root).exists()):
        return 0
    from pipelines.purging.runs import RunPictures

    try:
        runs = RunPictures(tracking_uri(config, root), root)
        found = runs.of(fingerprints, problems)
        for run, place in found:
            print(f"strip  run                  {run}  its pictures, reports and messages")
            if delete:
                runs.delete(place)
    except Exception as error:  # of the tracking server's own kinds
        problems.append(f"the record of runs could not be purged: {type(error).__name__}: {error}")
        return 0
    return len(found)


def main(arguments: list[str]) -> int:
    """The command line; 0, 1 if something could not be looked at, or 2 for wrong use."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    known = {"root", "opt_out", "delete", "tracking.uri"}
    if not given.get("root") or not given.get("opt_out") or given.keys() - known:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        deleting = given.get("delete") == "true"
        problems = purge(given["root"], given["opt_out"], deleting, given.get("tracking.uri"))
    except (ValueError, OSError) as error:
        print(f"error: {redacted(visible(error))}", file=sys.stderr)
        return 2
    for line in problems:
        print(f"error: {redacted(visible(line))}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
