"""What the configuration names and others have made: a folder, or a model of the hub.

Decided here and once, before anything starts, so that no worker takes a folder that it cannot see for a
model of the hub.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
"""The repository, or where the package is installed: where relative paths are looked for in second place."""

HUB = "hf://"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_WEIGHTS = (".json", ".jinja", ".safetensors", ".txt", ".model")


@dataclass(frozen=True)
class Reference:
    """Where a network is.

    Attributes:
        folder: Its folder, absolute; None for a model of the hub.
        hub: Its id on the hub; "" for a folder.
    """

    folder: Path | None = None
    hub: str = ""

    @property
    def path(self) -> str:
        """The folder or the id, as libraries take it."""
        return str(self.folder) if self.folder else self.hub

    @property
    def digest(self) -> str:
        """Digest of the folder's files; "" for a model of the hub, whose id says what it is."""
        return folder_digest(self.folder) if self.folder else ""


def find(path: str) -> Path | None:
    """A file or folder as an absolute path: relative to the working folder, else to the repository.

    A path that begins with a dot is relative to the working folder alone.

    Returns:
        None if there is none in either.
    """
    given = Path(path).expanduser()
    if not path:
        return None
    for place in _places(path):
        if (found := place / given).exists():
            return found.resolve()
    return None


def required(path: str, key: str) -> Path:
    """The file or folder that the configuration's key names.

    Raises:
        FileNotFoundError: There is none; the message names the key and where it was looked for.
    """
    found = find(path)
    if found is None:
        raise FileNotFoundError(f"{key}: there is no {path!r} {_looked(path)}")
    return found


def refer(path: str, key: str) -> Reference:
    """Decide whether a path means a folder or a model of the hub.

    What exists is a folder, relative to the working folder or else to the repository. What does not, but
    begins with the name of a folder that does (`zoo/captoiner`), was meant as one. The rest is a model of the
    hub if it has the form of its ids; `hf://owner/name` always is.

    Args:
        path: As the configuration has it.
        key: The configuration's key, for the message.

    Raises:
        FileNotFoundError: A folder is meant, and there is none.
    """
    if path.startswith(HUB) and _HUB_ID.fullmatch(path.removeprefix(HUB)):
        return Reference(hub=path.removeprefix(HUB))
    folder = find(path)
    if folder is not None and folder.is_dir():
        return Reference(folder)
    above = find(path.split("/")[0]) if _HUB_ID.fullmatch(path) else None
    if folder is None and above is None and _HUB_ID.fullmatch(path):
        return Reference(hub=path)
    hint = "name a folder, or a model of the hub as owner/name"
    if folder is not None:
        hint = "it is no folder"
    elif above is not None and above.is_dir():
        names = sorted(f"{above.name}/{child.name}" for child in above.iterdir() if child.is_dir())
        near = get_close_matches(path, names, n=1)
        hint = (f"did you mean {near[0]}? " if near else "") + f"A model of the hub would be {HUB}{path}"
    raise FileNotFoundError(f"{key}: there is no folder {path!r} {_looked(path)}; {hint}")


def folder_digest(folder: Path) -> str:
    """16 hex digits over the names and bytes of a folder's configuration and weights, subfolders included."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in _WEIGHTS and file.is_file()]
    return _digest(folder, tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache(64)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """The same for files of these sizes and times: several stages name one network, which may be large."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(file.relative_to(folder).as_posix().encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _looked(path: str) -> str:
    if Path(path).expanduser().is_absolute():
        return ""
    return "in " + " or in ".join(str(place) for place in dict.fromkeys(_places(path)))


def _places(path: str) -> tuple[Path, ...]:
    return (Path.cwd(),) if path.startswith(".") else (Path.cwd(), HOME)
