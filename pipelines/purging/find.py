"""Which folders of a store hold something of those who opted out: by their rows, or by their origin."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.execution import SUPERSEDED
from pipelines.dag.fingerprint import FINGERPRINT_LENGTH
from pipelines.dag.storage import TEMPORARY_SUFFIX, Folder, LocalFolder, many, open_folder
from pipelines.purging.parents import Folders, Parent, named, parents_of

WITH_URLS = ("urls", "images")
"""Kinds whose tables name a URL in every row."""

WEIGHTS = ("tokenizer", "generator", "class_generator", "vae", "encoder", "text_encoder", "captioner")
"""Kinds that were trained on pictures and hold none."""

MODEL = "model"
"""The published model: weights, with pictures beside them."""

_FINGERPRINT = re.compile(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}(-\d+)?")


@dataclass(frozen=True)
class Stored:
    """A folder of the store.

    Attributes:
        artifact: what it holds or was to hold.
        digest: of its bytes; "" if it was not finished, or nobody can read it.
        parents: what it was made from; None where nothing says it.
        rows: rows of those who opted out.
        finished: whether it has a manifest.
        torn: whether it has a table that was not written to its end, whose rows nobody can read.
    """

    artifact: Artifact
    digest: str
    parents: frozenset[Parent] | None
    rows: int
    finished: bool
    torn: bool

    @property
    def url(self) -> str:
        return self.artifact.url

    @property
    def fingerprint(self) -> str:
        """See `parents.named`."""
        return named(self.artifact)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        tainted: folders with such rows or made from such folders, those first that others were made from.
        problems: one line for each thing that could not be looked at.
    """

    tainted: list[Stored] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find(root: str, opted_out: Container[object]) -> Found:
    """Look through every folder of every kind, superseded and unfinished ones too."""
    found, everything = Found(), []
    for artifact in folders(open_folder(root), found.problems):
        everything.append(_stored(artifact, opted_out, found.problems))
    known = Folders((stored.artifact, stored.digest) for stored in everything)
    made_of = {  # of tables with URLs their own rows tell
        stored.url: {url for parent in stored.parents or () for url in known.of(parent)}
        for stored in everything
        if stored.torn or stored.artifact.kind not in WITH_URLS
    }
    tainted = {stored.url for stored in everything if stored.rows}
    _spread(tainted, made_of)
    if tainted:  # unfinished work whose origin nothing tells is made again at little cost
        unknown = (s for s in everything if s.parents is None and not s.finished and _is_ours(s.artifact))
        tainted |= {stored.url for stored in unknown if stored.url in made_of}
        _spread(tainted, made_of)
    found.tainted.extend(stored for stored in everything if stored.url in tainted)
    found.tainted.sort(key=lambda stored: (-stored.rows, stored.url))
    return found


def _spread(tainted: set[str], made_of: Mapping[str, set[str]]) -> None:
    """Add whatever is made from what is tainted."""
    while heirs := {url for url, parents in made_of.items() if parents & tainted} - tainted:
        tainted |= heirs


def _is_ours(artifact: Artifact) -> bool:
    """Whether a folder is called like an artifact: a user may keep others beside them."""
    return bool(_FINGERPRINT.fullmatch(artifact.fingerprint))


def folders(root: Folder, problems: list[str]) -> Iterator[Artifact]:
    """Every folder of every kind, superseded and unfinished ones too; links are named and not followed."""
    for store in (root, open_folder(root.url_of(SUPERSEDED))):
        if _is_link(store) and store is not root:
            problems.append(_not_followed(store))
            continue
        for kind in store.children():
            if kind.startswith("_"):
                continue
            folder = open_folder(store.url_of(kind))
            if _is_link(folder):
                problems.append(_not_followed(folder))
                continue
            try:
                names = folder.children()
            except OSError as error:
                problems.append(f"{folder.url}: cannot be read ({error.strerror or error})")
                continue
            for name in names:
                artifact = Artifact(kind, name, folder.url_of(name))
                if _is_link(artifact.folder):
                    problems.append(_not_followed(artifact.folder))
                else:
                    yield artifact


def _is_link(folder: Folder) -> bool:
    return isinstance(folder, LocalFolder) and folder.path().is_symlink()


def _not_followed(folder: Folder) -> str:
    return f"{folder.url}: a link, which is not followed; look at the folder that it leads to"


def _stored(artifact: Artifact, opted_out: Container[object], problems: list[str]) -> Stored:
    digest, parents, finished = "", None, False
    try:
        finished = artifact.folder.exists(MANIFEST)
        digest = artifact.digest if finished else ""
        parents = parents_of(artifact)
    except (ValueError, OSError) as error:
        problems.append(f"{error}; what it was made from is not known: delete it, or force its stage")
    rows, torn = _rows(artifact, opted_out, problems), not finished and _is_torn(artifact.folder)
    return Stored(artifact, digest, parents, rows, finished, torn)


def _is_torn(folder: Folder) -> bool:
    """Whether a writer was killed there; an object store shows no part of an object."""
    return isinstance(folder, LocalFolder) and any(folder.path().glob(f".*{TEMPORARY_SUFFIX}"))


def _rows(artifact: Artifact, opted_out: Container[object], problems: list[str]) -> int:
    if artifact.kind not in WITH_URLS:
        return 0
    try:
        names = [name for name in artifact.folder.sizes() if name.endswith(".parquet") and "/" not in name]
    except OSError as error:
        problems.append(f"{artifact.url}: cannot be read ({error.strerror or error})")
        return 0
    if isinstance(artifact.folder, LocalFolder):
        odd = [path for path in artifact.folder.path().glob("*.parquet") if not path.is_file()]
        problems.extend(f"{path}: no plain file, whose rows could be read" for path in sorted(odd))

    def count(name: str) -> int | str:
        try:
            return _rows_of_table(artifact, name, opted_out)
        except (pa.ArrowException, ValueError, OSError) as error:
            reason = str(error).partition("\n")[0][:200]
            return f"{artifact.folder.url_of(name)} is not readable: {reason}"

    found = many(count, names)
    problems.extend(problem for problem in found if isinstance(problem, str))
    return sum(rows for rows in found if isinstance(rows, int))


def _rows_of_table(artifact: Artifact, name: str, opted_out: Container[object]) -> int:
    """Rows of a table whose URL, or the URL that it led to, is one of theirs."""
    with artifact.folder.open(name) as file:
        table = pq.ParquetFile(file, pre_buffer=True)
        read = [column for column in ("url", "final_url") if column in table.schema_arrow.names]
        count = 0
        for batch in table.iter_batches(batch_size=10_000, columns=read):
            count += sum(any(url in opted_out for url in row.values()) for row in batch.to_pylist())
        return count
