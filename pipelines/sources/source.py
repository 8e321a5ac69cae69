"""What every source of pictures offers: parts to read, rows counted before, a digest, and the classes."""

from __future__ import annotations

import errno
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipelines.dag.reference import sizes_digest
from pipelines.dag.rows import is_ours
from reptok.folder import inside

MAX_FILE_BYTES = 2**28
MAX_CAPTION = 10_000
MAX_CLASSES = 1_000_000
MAX_DEPTH = 64
"""Folders in each other that are listed."""

_SPLITS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("val", "valid", "validation", "dev"), "val"
)
_TEST = "test"

TXT = "txt"
TEXT_FIELDS = (TXT, "caption", "text", "description")
"""What holds a caption where the configuration names nothing else: the `.txt` beside a picture, or a column
or field of a JSON object."""


OUTSIDE = "outside_folder"
"""Reason of a row whose file is a link out of the folder: somebody else's file would become a sample."""


class OutsideError(ValueError):
    """A link leads out of the source's folder."""


@dataclass(frozen=True)
class Picture:
    """One row of a source.

    Attributes:
        name: Where it stands: a path, a row of a file, a sample of a tar.
        data: The picture file's bytes.
        reason: Why there is no picture; "" if there is one.
        split: "train" or "val" if the source says so, else "".
        label: Number of its class.
        subject: Name of its class.
        caption: Its text; None where the source has none.
        keys: What another table may call it, the most exact first: a path, a key of a tar, a column's value.
        key: The sample's own (`reptok.data.keys`); needed if there is a picture.
    """

    name: str
    data: bytes = b""
    reason: str = ""
    split: str = ""
    label: int | None = None
    subject: str | None = None
    caption: str | None = None
    keys: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Span:
    """Rows that are read one after the other: how many, and JSON values that say where they are."""

    rows: int
    place: dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A piece of a source, all of it of one split, read by one worker."""

    name: str
    split: str
    spans: tuple[Span, ...]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(span.rows for span in self.spans)


@dataclass
class Source(ABC):
    """A folder of pictures in some layout.

    Attributes:
        folder: The folder.
        fields: Columns or JSON fields that may hold a caption; the first that has a text counts.
        key: The column of a parquet file that names a row for another table; "" for none.
        class_names: Names of the classes; None if it has none, or tells numbers alone.
        num_classes: How many classes; 0 for none, None if only reading tells.
        captioned: Rows that have a caption of their own, as far as listing shows; None if only reading tells.
        rows: How many rows; None if only reading tells.
        splits: "train" and "val", as far as the source tells them.
        faults: What listing and `parts` found wrong, one line each; the rows that it struck are counted.
    """

    folder: Path
    fields: tuple[str, ...] = TEXT_FIELDS
    key: str = ""
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = 0
    captioned: int | None = None
    rows: int | None = None
    splits: frozenset[str] = frozenset()
    faults: list[str] = field(default_factory=list)

    @property
    def own_split(self) -> bool:
        """Whether it says itself which samples are for validation."""
        return "val" in self.splits

    @abstractmethod
    def parts(self, rows: int, val_fraction: float) -> list[Part]:
        """Divide the source into parts of about `rows` rows, in a fixed order, those for validation first.

        Args:
            rows: Of one part.
            val_fraction: Expected share for validation, where the source does not tell its splits; raised
                so that of few rows enough are drawn.
        """

    @abstractmethod
    def digest(self) -> str:
        """16 hex digits that change with what the source holds, as far as a listing shows it."""


class Read(Protocol):
    """Reads a part where a worker runs, without listing the source again."""

    def __call__(
        self, folder: Path, names: tuple[str, ...] | None, place: dict[str, Any]
    ) -> Iterator[Picture]:
        """Yield the rows of a span in order; may end early, with a ValueError, where a file is damaged."""
        ...


def split_of_path(path: str) -> str:
    """The split that a file's folders or name tell: "train", "val", "test", or "" for none."""
    for word in re.split(r"[/\\]", path.lower()):
        first = re.split(r"[^a-z]", word)[0]
        if first in _SPLITS:
            return _SPLITS[first]
        if first == _TEST:
            return _TEST
    return ""


def walk(root: Path, faults: list[str]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder below a root, as a relative path, with the names of folders and of others in it.

    Names that begin with a dot are left out, and links to folders are not followed.

    Args:
        root: The folder.
        faults: Gets a line for each folder that lies too deep to be listed.

    Raises:
        OSError: A folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        if error.errno == errno.ENAMETOOLONG:
            faults.append(f"{os.path.relpath(error.filename, root)[:80]}...: the path is too long; left out")
            return
        message = f"cannot read {error.filename!r}: {error.strerror}"
        if isinstance(error, PermissionError):
            raise PermissionError(f"{message}; change its permissions") from error
        raise OSError(message) from error

    for directory, folders, names in os.walk(root, onerror=refuse):
        place = Path(directory).relative_to(root)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield place, list(folders), [name for name in names if not name.startswith(".")]
        if folders and len(place.parts) >= MAX_DEPTH:
            faults.append(f"{str(place)[:80]}...: more than {MAX_DEPTH} folders in each other; left out")
            folders.clear()


def files_to_read(folder: Path, ending: str, faults: list[str]) -> list[str]:
    """Return what has an ending in a folder, in order, apart from test splits; `faults` as in `walk`."""
    paths = sorted(
        place / name for place, folders, names in walk(folder, faults) for name in (*folders, *names)
    )
    found = [path.as_posix() for path in paths if path.name.lower().endswith(ending)]
    return [name for name in found if split_of_path(name) != _TEST]


def shown(path: str) -> str:
    """A file's name as text: what is no UTF-8 in it is replaced."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """Return a digest of large files by their names and sizes."""
    return sizes_digest((name, (folder / name).lstat().st_size) for name in names)


def clean_caption(text: object) -> str:
    """One line of printable text of at most `MAX_CAPTION` characters; "" for what is no text."""
    if not isinstance(text, str):
        return ""
    text = text[: 2 * MAX_CAPTION].encode("utf-8", "replace").decode("utf-8")
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:MAX_CAPTION].strip()


def clean_label(value: object) -> int | None:
    """A class number, None for none; -1 stands for none, too.

    Raises:
        ValueError: It cannot be a class number.
    """
    if value is None or value == -1:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_CLASSES:
        raise ValueError(f"{value!r} is no class number")
    return value


@contextmanager
def opened(folder: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file of the source by its name, never waiting and never leaving the folder.

    Raises:
        OutsideError: A link leads out of the folder.
        ValueError: It is missing, a pipe, a device or a folder, or cannot be opened or read.
        OSError: This machine is to blame, its storage or its open files; no row's.
    """
    try:
        path = inside(folder, name)
    except ValueError as error:
        raise OutsideError(str(error)) from error
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("not a regular file")
            yield file
    except OSError as error:
        if is_ours(error):
            raise
        raise ValueError(str(error)) from error


def read_file(folder: Path, name: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """Read a file of at most `limit` bytes; raises as `opened`, and ValueError if it is larger."""
    with opened(folder, name) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"more than {limit} bytes")
    return data
