"""Name the artifacts that nothing refers to, with their bytes, and delete them on request.

    python -m pipelines gc root=runs [keep=NAME,...] [days=7] [delete=true] [tracking.uri=...]

Kept are published models, what an alias of the registry stands for, what `keep` names, what was published in
the last `days` and unfinished work; and everything that those are made from. A name is a run's in MLflow (its
id or its name; what such a run and its stages made or read is kept), or an artifact's fingerprint.
Superseded artifacts are kept only where something was made from their bytes. Without `delete=true` nothing is
deleted; with it this refuses while a workflow runs on the store, since what that has skipped and will read
has no heir yet, and a workflow that begins meanwhile waits. A file that several artifacts share takes its
bytes until the last of them goes.

Exit status: 0 all was looked at, 1 something could not be, 2 wrong use.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pipelines.dag.embedded_tracking import database
from pipelines.dag.presence import alone, running, workflows
from pipelines.dag.redaction import redacted
from pipelines.dag.storage import Folder
from pipelines.dag.tracking import TrackingConfig, tracking_uri
from pipelines.purging.delete import delete, trash_of
from pipelines.purging.named import aliases, fingerprints_of
from pipelines.purging.parents import named
from pipelines.purging.unreferenced import References, references
from reptok.terminal import visible

DAYS = 7.0


def collect(root: str, keep: list[str], days: float, deleting: bool, uri: str | None = None) -> References:
    """Name, and if `deleting` delete, what nothing refers to.

    Raises:
        ValueError: There is no such store, nothing has a name that is to be kept, or a workflow runs there
            while this is to delete.
    """
    trash = trash_of(root)
    if deleting:
        with alone(root) as check:
            return _collect(root, keep, days, uri, trash, check)
    if found := workflows(root):
        print(f"note: {running(found)}; delete=true refuses until it has ended")
    return _collect(root, keep, days, uri, trash, None)


def _collect(
    root: str,
    keep: list[str],
    days: float,
    uri: str | None,
    trash: Folder,
    check: Callable[[], None] | None,
) -> References:
    """Look, and delete if nobody else is there, which `check` makes sure of."""
    known, standing = _recorded(root, keep, uri)
    found = references(root, {*keep, *known}, standing, days, time.time())
    if unknown := [name for name in found.unknown if name in keep and name not in known.values()]:
        raise ValueError(f"keep={','.join(unknown)}: neither a run nor an artifact has that name")
    for why, count in sorted(Counter(kept.why.partition(" ")[0] for kept in found.kept).items()):
        print(f"keep   {count:>6} {why}")
    for artifact, size in found.unreferenced:
        print(visible(f"delete {artifact.kind:<20} {artifact.fingerprint}  {size:,} bytes"))
    if check:
        trash.remove()
        live = {(kept.artifact.kind, kept.artifact.fingerprint) for kept in found.kept}
        for artifact, _ in found.unreferenced:
            check()
            name = named(artifact)
            delete(artifact, "" if (artifact.kind, name) in live else name, trash)
    total = sum(size for _, size in found.unreferenced)
    said = "; nothing was deleted yet: delete=true" if found.unreferenced and not check else ""
    print(f"{len(found.unreferenced)} folders of {total:,} bytes{said}")
    return found


def _recorded(root: str, keep: list[str], uri: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """From the record of runs: fingerprints with the name by which they are kept; aliases by URL."""
    embedded = not (uri or os.environ.get("MLFLOW_TRACKING_URI"))
    if embedded and not database(root).exists():
        return {}, {}
    from mlflow import MlflowClient

    client: Any = MlflowClient(tracking_uri=tracking_uri(TrackingConfig(uri=uri), root))
    return fingerprints_of(client, keep), aliases(client)


def main(arguments: list[str]) -> int:
    """The command line; 0, 1 if something could not be looked at, or 2 for wrong use."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if not given.get("root") or given.keys() - {"root", "keep", "days", "delete", "tracking.uri"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        keep = [name for name in given.get("keep", "").split(",") if name]
        days, deleting = float(given.get("days", DAYS)), given.get("delete") == "true"
        problems = collect(given["root"], keep, days, deleting, given.get("tracking.uri")).problems
    except (ValueError, OSError) as error:
        print(f"error: {redacted(visible(str(error)))}", file=sys.stderr)
        return 2
    for line in problems:
        print(f"error: {redacted(visible(line))}", file=sys.stderr)
    return 1 if problems else 0
