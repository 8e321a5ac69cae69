"""Compare every published artifact of a store with its manifest: `python -m pipelines.dag.verify ROOT`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pipelines.dag.artifact import MANIFEST, Artifact, faults
from pipelines.dag.redaction import redacted
from pipelines.dag.storage import Folder, many, open_folder
from reptok.terminal import visible


def published_artifacts(root: str) -> list[Artifact]:
    """Every artifact with a manifest, by kind and fingerprint."""
    store = open_folder(root)
    return [artifact for kind in _kinds(store) for artifact in _published(kind, store)]


def verify(root: str) -> list[str]:
    """One line per fault, with the stage that makes the artifact again; none if everything is sound."""
    found, store = [], open_folder(root)
    for kind in _kinds(store):
        try:
            published = list(_published(kind, store))
        except OSError as error:
            found.append(f"{store.url_of(kind)}: cannot be read ({error.strerror or error})")
            continue
        for artifact in published:
            if lines := _faults(artifact):
                cure = f"is damaged: make it again with {_cure(artifact)}"
                found += [*lines, f"  {artifact.kind} {artifact.fingerprint} {cure}"]
    return found


def _kinds(store: Folder) -> list[str]:
    return [name for name in store.children() if not name.startswith("_")]


def _published(kind: str, store: Folder) -> Iterator[Artifact]:
    folder = open_folder(store.url_of(kind))
    names = folder.children()
    there = many(lambda fingerprint: folder.exists(f"{fingerprint}/{MANIFEST}"), names)
    for fingerprint, published in zip(names, there, strict=True):
        if published:
            yield Artifact(kind, fingerprint, folder.url_of(fingerprint))


def _faults(artifact: Artifact) -> list[str]:
    try:
        return faults(artifact)
    except OSError as error:
        return [f"{artifact.url_of(MANIFEST)}: cannot be read ({error.strerror or error})"]


def _cure(artifact: Artifact) -> str:
    try:
        return f"force={artifact.manifest['stage']}"
    except (ValueError, OSError):
        return f"force= and the stage that makes {artifact.kind}"


def main(arguments: list[str]) -> int:
    """Print the faults of a store; 0 if there are none, 1 if there are, 2 for wrong use."""
    if len(arguments) != 1:
        print("usage: python -m pipelines.dag.verify ROOT   (the artifact store, for example runs)")
        return 2
    try:
        found = verify(arguments[0])
        sound = 0 if found else len(published_artifacts(arguments[0]))
    except (ValueError, OSError) as error:
        print(f"error: {redacted(visible(error))}", file=sys.stderr)
        return 2
    print(visible("\n".join(found)) if found else f"{sound} artifacts are sound")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
