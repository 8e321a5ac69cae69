"""Compare every published artifact of a store with its manifest: `python -m pipelines.dag.verify ROOT`."""

from __future__ import annotations

import sys

from pipelines.dag.artifact import MANIFEST, Artifact, faults
from pipelines.dag.storage import open_folder


def published_artifacts(root: str) -> list[Artifact]:
    """Every artifact with a manifest, by kind and fingerprint."""
    store = open_folder(root)
    found = []
    for kind in store.children():
        if kind.startswith("_"):
            continue
        folder = open_folder(store.url_of(kind))
        for fingerprint in folder.children():
            if folder.exists(f"{fingerprint}/{MANIFEST}"):
                found.append(Artifact(kind, fingerprint, folder.url_of(fingerprint)))
    return found


def verify(root: str) -> list[str]:
    """One line per fault, with the stage that makes the artifact again; none if everything is sound."""
    found = []
    for artifact in published_artifacts(root):
        lines = faults(artifact)
        if lines:
            found += lines
            found.append(
                f"  {artifact.kind} {artifact.fingerprint} is damaged: make it again with {_cure(artifact)}"
            )
    return found


def _cure(artifact: Artifact) -> str:
    try:
        return f"force={artifact.manifest['stage']}"
    except (ValueError, KeyError):
        return f"force= and the stage that makes {artifact.kind}"


def main(arguments: list[str]) -> int:
    """Print the faults of a store; 0 if there are none, 1 if there are, 2 for wrong use."""
    if len(arguments) != 1:
        print("usage: python -m pipelines.dag.verify ROOT   (the artifact store, for example runs/demo)")
        return 2
    artifacts = published_artifacts(arguments[0])
    found = verify(arguments[0])
    print("\n".join(found) if found else f"{len(artifacts)} artifacts are sound")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
