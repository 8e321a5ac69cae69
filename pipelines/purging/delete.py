"""Deleting a folder of the store, with what this machine has of it."""

from __future__ import annotations

import shutil

from pipelines.dag.artifact import Artifact
from pipelines.dag.storage import Folder, LocalFolder, open_folder
from reptok.cache import cache_root
from reptok.data.pieces import forget

TRASH = "_purged"


def trash_of(root: str) -> Folder:
    """Where folders go that are being deleted.

    Raises:
        ValueError: There is no such store, or somebody put a link there.
    """
    store = open_folder(root)
    trash = open_folder(store.url_of(TRASH))
    if isinstance(store, LocalFolder) and not store.path().is_dir():
        raise ValueError(f"{store.url} is no folder: root=... names the store to purge")
    if isinstance(trash, LocalFolder) and trash.path().is_symlink():
        raise ValueError(f"{trash.url} is a link, and what is purged must not go elsewhere; remove it")
    return trash


def delete(artifact: Artifact, fingerprint: str, trash: Folder) -> None:
    """Delete a folder; copies of a `fingerprint` go, too, where it is not "" for being another's."""
    folder = artifact.folder
    if isinstance(folder, LocalFolder):  # at once: half a folder would no longer tell whose it was
        folder.move_to(open_folder(trash.url_of("folder")))
        trash.remove()
    folder.remove()
    if fingerprint:
        forget_copies(artifact, fingerprint)
    else:
        forget(artifact.url)


def forget_copies(artifact: Artifact, fingerprint: str) -> None:
    """Remove copies on this machine of what lies elsewhere."""
    shutil.rmtree(cache_root() / "artifacts" / artifact.kind / fingerprint, ignore_errors=True)
    forget(artifact.url)
    shutil.rmtree(cache_root() / "scratch" / fingerprint, ignore_errors=True)
