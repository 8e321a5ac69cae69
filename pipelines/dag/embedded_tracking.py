"""The record of runs inside of an artifact store: an SQLite file, and the runs' files beside it.

MLflow notes absolute paths. In a store that was copied or moved they are made to lead into the copy, before
anybody reads, writes or deletes there: else they lead to the original.
"""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing
from pathlib import Path

from pipelines.dag.storage import LocalFolder, open_folder
from pipelines.dag.writing import StorageError

DATABASE, FILES = "mlflow.db", "mlartifacts"
BUSY_SECONDS = 20.0
_PLACES = (("experiments", "artifact_location"), ("runs", "artifact_uri"), ("model_versions", "source"))


def database(root: str) -> Path:
    """The file for a store at `root`; of a remote store it lies in the working folder."""
    folder = open_folder(root)
    return (folder.path() if isinstance(folder, LocalFolder) else Path.cwd()) / DATABASE


def uri(root: str) -> str:
    """MLflow's word for that file.

    Raises:
        ValueError: the path has a character that such a URI has no way to hold.
    """
    path = database(root)
    if bad := [character for character in "?%" if character in str(path)]:
        raise ValueError(
            f"{path} has a {bad[0]!r}, which an address of a database cannot hold; choose another root=..., "
            "or tracking=off, or tracking=server"
        )
    return f"sqlite:///{path}"


def relocate(root: str) -> None:
    """Lead the paths of a copied or moved store into itself; nothing happens in one that was not.

    Raises:
        StorageError: the record is damaged, cannot be written where that is needed, or is another store's.
    """
    folder = open_folder(root)
    path = database(root)
    if not isinstance(folder, LocalFolder) or not path.is_file():
        return
    try:
        _relocate(path, folder.url)
    except sqlite3.Error as error:
        raise StorageError(
            errno.EIO,
            f"{path}, the record of runs, cannot be used ({error}): make it writable, or move it away and a "
            "new one begins, or record nothing with tracking=off",
        ) from error


def _relocate(path: Path, here: str) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection, connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if "experiments" not in tables:
            return
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        for old in {
            place.removesuffix(f"/{FILES}")
            for (place,) in rows
            if isinstance(place, str) and place.endswith(f"/{FILES}")
        }:
            if old == here:
                continue
            if path.is_symlink() or path.stat().st_nlink > 1:
                raise StorageError(
                    errno.EMLINK,
                    f"{path} is a link to the record of runs of {old}, whose runs would be lost to it: put a "
                    "copy of the file in its place, or remove it and a new record begins",
                )
            for table, column in _PLACES:
                if table in tables:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (here, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
