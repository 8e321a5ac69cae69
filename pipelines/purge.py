"""Delete what was downloaded from those who opted out, and what was made of it.

    python pipelines/purge.py root=runs opt_out=opt_out.txt [delete=true]

The list has a URL or a host per line. Without `delete=true` it says what it would do. It deletes whole
artifacts: those with a row of such a URL, and whatever was made from them, unfinished and superseded ones
included. The next run makes them again without those rows, given the same list as `data.select_urls.opt_out`;
`data.download.reuse` spares it from fetching the rest anew, so run that before you purge. Trained models hold
no pictures and stay: they are named, and it is yours to decide.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = str(Path(__file__).resolve().parents[1])
if __name__ == "__main__":
    # Last: what lies in a folder of ours must not hide a module of the same name.
    sys.path[:] = [*(p for p in sys.path if p != str(Path(__file__).resolve().parent)), REPOSITORY]

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from pipelines.dag.artifact import MANIFEST, Artifact  # noqa: E402
from pipelines.dag.execution import SUPERSEDED  # noqa: E402
from pipelines.dag.redaction import redacted  # noqa: E402
from pipelines.dag.storage import Folder, open_folder  # noqa: E402
from pipelines.stages.select_urls import read_lines  # noqa: E402
from pipelines.urls.opt_out import OptOut  # noqa: E402

WITH_URLS = ("urls", "images")
"""Kinds whose tables name a URL in every row."""

MODELS = ("tokenizer", "generator", "model")
"""Kinds that were trained on pictures and hold none."""


@dataclass(frozen=True)
class Stored:
    """A folder of the store.

    Attributes:
        artifact: what it holds or was to hold.
        identity: its kind and the digest of its bytes, or its place if it was never finished.
        parents: identities of what it was made from.
        rows: rows of those who opted out.
    """

    artifact: Artifact
    identity: tuple[str, str]
    parents: frozenset[tuple[str, str]]
    rows: int


def find(root: str, opted_out: OptOut) -> list[Stored]:
    """Folders with rows of those who opted out, and those made from such folders, the first ones first."""
    everything = [_stored(artifact, opted_out) for artifact in _folders(open_folder(root))]
    made = [s for s in everything if s.artifact.kind not in WITH_URLS]  # the others' own rows tell
    tainted = {s.identity for s in everything if s.rows}
    while heirs := {s.identity for s in made if s.parents & tainted} - tainted:
        tainted |= heirs
    found = [s for s in everything if s.identity in tainted]
    return sorted(found, key=lambda stored: (-stored.rows, stored.artifact.url))


def _folders(root: Folder) -> Iterator[Artifact]:
    """Every folder of every kind, superseded ones too."""
    for store in (root, open_folder(root.url_of(SUPERSEDED))):
        for kind in store.children():
            if not kind.startswith("_"):
                folder = open_folder(store.url_of(kind))
                for name in folder.children():
                    yield Artifact(kind, name, folder.url_of(name))


def _stored(artifact: Artifact, opted_out: OptOut) -> Stored:
    identity, parents = (artifact.kind, artifact.url), frozenset[tuple[str, str]]()
    if artifact.folder.exists(MANIFEST):
        identity = (artifact.kind, artifact.digest)
        parents = frozenset(artifact.manifest["input_digests"].items())
    rows = 0
    if artifact.kind in WITH_URLS:
        names = [name for name in artifact.folder.sizes() if name.endswith(".parquet") and "/" not in name]
        rows = sum(_rows(artifact, name, opted_out) for name in names)
    return Stored(artifact, identity, parents, rows)


def _rows(artifact: Artifact, name: str, opted_out: OptOut) -> int:
    """Rows of a table whose URL, or the URL that it led to, is one of theirs."""
    with artifact.folder.open(name) as file:
        try:
            table = pq.ParquetFile(file)
            read = [column for column in ("url", "final_url") if column in table.schema_arrow.names]
            count = 0
            for batch in table.iter_batches(batch_size=10_000, columns=read):
                count += sum(any(url in opted_out for url in row.values()) for row in batch.to_pylist())
            return count
        except pa.ArrowException as error:
            raise ValueError(f"{artifact.folder.url_of(name)} is not readable: {error}") from error


def main(arguments: list[str]) -> int:
    """The command line; 0, or 2 for wrong use."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if not given.get("root") or not given.get("opt_out") or given.keys() - {"root", "opt_out", "delete"}:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = find(given["root"], OptOut(read_lines(given["opt_out"])))
        for stored in found:
            place = stored.artifact
            kept = place.kind in MODELS
            what = f"{stored.rows:,} rows" if stored.rows else "made from such rows"
            print(f"{'keep  ' if kept else 'delete'} {place.kind:<20} {place.fingerprint}  {what}")
            if given.get("delete") == "true" and not kept:
                place.folder.remove()
    except (ValueError, OSError) as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        return 2
    done = given.get("delete") == "true"
    print(f"{len(found)} folders" + ("" if done or not found else "; nothing was deleted yet: delete=true"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
