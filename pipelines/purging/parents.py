"""What a folder of a store was made from, and which folder that is.

It takes name and bytes to tell: one name may stand for what is there and for what was superseded, and two
folders of other origin may hold the same bytes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.execution import ORIGIN, SUPERSEDED


@dataclass(frozen=True)
class Parent:
    """Something that an artifact was made from.

    Attributes:
        kind: what it is.
        fingerprint: its name; "" where the record does not tell.
        digest: of its bytes; "" for what was not published yet.
    """

    kind: str
    fingerprint: str
    digest: str


def parents_of(artifact: Artifact) -> frozenset[Parent] | None:
    """What a manifest, or the record of unfinished work, says; None where there is no such record.

    Raises:
        ManifestError: the manifest is damaged.
        OSError: it cannot be read.
    """
    if artifact.folder.exists(MANIFEST):
        names, digests = artifact.manifest["inputs"], artifact.manifest["input_digests"]
        return frozenset(Parent(kind, names.get(kind, ""), digest) for kind, digest in digests.items())
    try:
        record = json.loads(artifact.folder.read_bytes(ORIGIN))
        return frozenset(
            Parent(str(kind), str(made["fingerprint"]), str(made["digest"])) for kind, made in record.items()
        )
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        return None


class Folders:
    """Folders of a store, to be found as somebody's parents.

    Args:
        folders: each with the digest of its bytes, "" where it has none or none that can be read.
    """

    def __init__(self, folders: Iterable[tuple[Artifact, str]]) -> None:
        self._named: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        self._holding: dict[tuple[str, str], list[str]] = defaultdict(list)
        for artifact, digest in sorted(folders, key=lambda known: is_superseded(known[0])):
            self._named[artifact.kind, named(artifact)].append((artifact.url, digest))
            if digest:
                self._holding[artifact.kind, digest].append(artifact.url)

    def of(self, parent: Parent) -> list[str]:
        """URLs of what a parent is or may be, what is in its place before what was superseded.

        That is what has its name and its bytes; if nothing has both, what has its bytes, and what has its
        name and bytes that nobody knows.
        """
        found = self._named.get((parent.kind, parent.fingerprint), [])
        if not parent.digest:
            return [url for url, _ in found]
        if same := [url for url, digest in found if digest == parent.digest]:
            return same[:1]
        unknown = [url for url, digest in found if not digest]
        return [*unknown, *self._holding.get((parent.kind, parent.digest), [])]


def named(artifact: Artifact) -> str:
    """An artifact's fingerprint; a superseded folder's name has a number behind it."""
    return artifact.fingerprint.partition("-")[0]


def is_superseded(artifact: Artifact) -> bool:
    """Whether an artifact was moved aside, as another took its place."""
    return artifact.url.split("/")[-3] == SUPERSEDED
