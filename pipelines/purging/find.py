"""Which folders of a store hold something of those who opted out: by their rows, or by their origin."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.execution import ORIGIN, SUPERSEDED
from pipelines.dag.fingerprint import FINGERPRINT_LENGTH
from pipelines.dag.storage import TEMPORARY_SUFFIX, Folder, LocalFolder, many, open_folder

WITH_URLS = ("urls", "images")
"""Kinds whose tables name a URL in every row."""

WEIGHTS = ("tokenizer", "generator", "class_generator", "vae", "encoder", "text_encoder", "captioner")
"""Kinds that were trained on pictures and hold none."""

MODEL = "model"
"""The published model: weights, with pictures beside them."""

Identity = tuple[str, str]
_FINGERPRINT = re.compile(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}(-\d+)?")


@dataclass(frozen=True)
class Stored:
    """A folder of the store.

    Attributes:
        artifact: what it holds or was to hold.
        identities: its kind with its name, and with the digest of its bytes if it was finished.
        parents: an identity of each thing that it was made from; None where nothing says it.
        rows: rows of those who opted out.
        finished: whether it has a manifest.
        torn: whether it has a table that was not written to its end, whose rows nobody can read.
    """

    artifact: Artifact
    identities: frozenset[Identity]
    parents: frozenset[Identity] | None
    rows: int
    finished: bool
    torn: bool

    @property
    def fingerprint(self) -> str:
        """The artifact's; a superseded folder's name has a number behind it."""
        return self.artifact.fingerprint.partition("-")[0]


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
    made = [s for s in everything if s.torn or s.artifact.kind not in WITH_URLS]  # the others' own rows tell
    tainted = _identities(s for s in everything if s.rows)
    while heirs := _identities(s for s in made if s.parents and s.parents & tainted) - tainted:
        tainted |= heirs
    if tainted:  # unfinished work whose origin nothing tells is made again at little cost
        unknown = (s for s in made if s.parents is None and not s.finished and _is_ours(s.artifact))
        tainted |= _identities(unknown)
    found.tainted.extend(s for s in everything if s.identities & tainted)
    found.tainted.sort(key=lambda stored: (-stored.rows, stored.artifact.url))
    return found


def _identities(stored: Iterable[Stored]) -> frozenset[Identity]:
    return frozenset().union(*(s.identities for s in stored))


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
    identities, parents, finished = {(artifact.kind, artifact.fingerprint)}, None, False
    try:
        finished = artifact.folder.exists(MANIFEST)
        if finished:
            identities.add((artifact.kind, artifact.digest))
            parents = frozenset(artifact.manifest["input_digests"].items())
        else:
            parents = origin(artifact)
    except (ValueError, OSError) as error:
        problems.append(f"{error}; what it was made from is not known: delete it, or force its stage")
    rows, torn = _rows(artifact, opted_out, problems), not finished and _is_torn(artifact.folder)
    return Stored(artifact, frozenset(identities), parents, rows, finished, torn)


def _is_torn(folder: Folder) -> bool:
    """Whether a writer was killed there; an object store shows no part of an object."""
    return isinstance(folder, LocalFolder) and any(folder.path().glob(f".*{TEMPORARY_SUFFIX}"))


def origin(artifact: Artifact) -> frozenset[Identity] | None:
    """What unfinished work is made from, by kind; None where no record tells."""
    if not artifact.folder.exists(ORIGIN):
        return None
    try:
        return frozenset((str(k), str(d)) for k, d in json.loads(artifact.folder.read_bytes(ORIGIN)).items())
    except (ValueError, AttributeError, RecursionError):
        return None


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
