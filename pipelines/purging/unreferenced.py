"""Which folders of a store nothing refers to: kept are models, what is named, and what they are made from."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from pipelines.dag.artifact import MANIFEST, Artifact
from pipelines.dag.storage import open_folder
from pipelines.purging.find import MODEL, folders
from pipelines.purging.parents import Folders, Parent, is_superseded, parents_of

DAY = 86_400
_CREATED = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Kept:
    """A folder that is kept, and why: "model", "named", "new", "unfinished", ..., or what is made from it."""

    artifact: Artifact
    why: str


@dataclass(frozen=True)
class References:
    """What a search came to.

    Attributes:
        kept: what something refers to.
        unreferenced: what nothing does, with its bytes.
        problems: one line for each folder that could not be looked at; it is kept.
        unknown: names that were to be kept and that nothing has.
    """

    kept: list[Kept]
    unreferenced: list[tuple[Artifact, int]]
    problems: list[str]
    unknown: list[str]


def references(
    root: str, names: Collection[str], aliases: Mapping[str, str], days: float, now: float
) -> References:
    """Look through every folder of every kind.

    Args:
        root: the store.
        names: fingerprints to keep.
        aliases: alias by URL of what it stands for.
        days: what was published in so many days is kept, too: who will read it may not have begun.
        now: Unix time.
    """
    problems: list[str] = []
    made_of: dict[str, frozenset[Parent]] = {}
    digests: dict[str, str] = {}
    why: dict[str, str] = {}
    every = {artifact.url: artifact for artifact in folders(open_folder(root), problems)}
    for url, artifact in every.items():
        try:
            made_of[url] = parents_of(artifact) or frozenset()
            if not artifact.folder.exists(MANIFEST):
                why[url] = "unfinished"
                continue
            digests[url] = artifact.digest
            reason = _reason(artifact, names, aliases, now - days * DAY)
            if reason and not is_superseded(artifact):
                why[url] = reason
        except (ValueError, OSError) as error:
            problems.append(f"{url}: {error}; it is kept")
            made_of[url], why[url] = frozenset(), "unreadable"
    _spread(why, made_of, Folders((artifact, digests.get(url, "")) for url, artifact in every.items()), every)
    rest = [(artifact, _bytes(artifact)) for url, artifact in every.items() if url not in why]
    rest.sort(key=lambda found: -found[1])
    present = {artifact.fingerprint for artifact in every.values()}
    kept = [Kept(every[url], reason) for url, reason in why.items()]
    return References(kept, rest, problems, sorted(set(names) - present))


def _reason(artifact: Artifact, names: Collection[str], aliases: Mapping[str, str], since: float) -> str:
    if artifact.url in aliases:
        return f"alias {aliases[artifact.url]}"
    if artifact.kind == MODEL:
        return "model"
    if artifact.fingerprint in names:
        return "named"
    created = artifact.manifest["created"]
    if created and _seconds(created) >= since:
        return "new"
    return ""


def _seconds(created: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(created, _CREATED)))


def _spread(
    why: dict[str, str],
    made_of: Mapping[str, Iterable[Parent]],
    known: Folders,
    every: Mapping[str, Artifact],
) -> None:
    """Keep whatever the kept is made from: what it names, if that has the bytes, or what has them."""
    waiting = list(why)
    while waiting:
        heir = waiting.pop()
        for parent in made_of[heir]:
            for url in known.of(parent):
                if url not in why:
                    why[url] = f"{every[heir].kind} {every[heir].fingerprint} is made from it"
                    waiting.append(url)


def _bytes(artifact: Artifact) -> int:
    return sum(artifact.folder.sizes().values())
