"""An existing WebDataset: tars whose members of one key are one sample. One tar is one shard.

Of a sample, the picture, `.txt`, `.json` and `.cls` are read, by name; whatever else it has is passed over
unread. Tars are listed by their headers before, so that every sample is counted, if refused with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.sources.folder import EXTENSIONS
from pipelines.sources.held_out import FEW_FILES, Chunk, divided, kept
from pipelines.sources.metadata import first_text, others
from pipelines.sources.source import (
    OUTSIDE,
    TXT,
    OutsideError,
    Part,
    Picture,
    Source,
    clean_label,
    files_digest,
    files_to_read,
    opened,
    split_of_path,
)
from reptok.data.keys import key_of
from reptok.data.shards import parse_object
from reptok.data.untrusted_tar import MAX_DATA_BYTES, UntrustedMember, iterate_untrusted

IMAGES = tuple(extension[1:] for extension in EXTENSIONS)
TEXTS = {TXT: 2**24, "json": 2**20, "cls": 2**10}
"""What else is read of a sample, and its most bytes: JSON takes fifty times its size in memory."""
_DIGITS = re.compile(rb"[+-]?[0-9]{1,20}")
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")


@dataclass
class Group:
    """Members of one key, as far as they are used, and why the sample is refused."""

    key: str
    members: dict[str, bytes] = field(default_factory=dict)
    refused: str = ""


@dataclass
class WebDatasetSource(Source):
    """The tars of a folder in the order of their names; those of a test split are left out.

    Raises:
        ValueError: There are only tars of a test split.
    """

    tars: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.num_classes = None
        names = files_to_read(self.folder, ".tar", self.faults)
        if not names:
            raise ValueError(f"'{self.folder}' has tars of a test split only")
        self.tars, self.splits = names, frozenset(map(split_of_path, names))

    def parts(self, rows: int, val_fraction: float) -> list[Part]:
        chunks = []
        with ThreadPoolExecutor(8) as readers:
            for name, (count, keys, fault) in zip(
                self.tars, readers.map(self._count, self.tars), strict=True
            ):
                place = {"tar": name, "fields": self.fields}
                split = split_of_path(name) if self.own_split else ""
                chunks.append(Chunk(name, count, place, partial(iter, keys), split, name))
                self.faults += [f"{name}: {fault}"] if fault else []
        return divided(chunks, rows, val_fraction)

    def digest(self) -> str:
        return files_digest(self.folder, self.tars)

    def _count(self, name: str) -> tuple[int, list[str], str]:
        """Samples of a tar, with keys if there are few tars; where it is damaged, the rest counts as one."""
        rows, keys, few = 0, [], len(self.tars) < FEW_FILES
        try:
            with opened(self.folder, name) as file:
                for group in groups(iterate_untrusted(file)):
                    rows += 1
                    if few:
                        keys.append(_own_key(name, group))
        except ValueError as error:
            return rows + 1, keys, str(error)
        return rows, keys, ""


def read(folder: Path, names: tuple[str, ...] | None, place: dict[str, Any]) -> Iterator[Picture]:
    """Yield the samples of a tar; see `source.Read`."""
    name = place["tar"]
    split = split_of_path(name)
    try:
        with opened(folder, name) as file:
            for group in groups(iterate_untrusted(file, wanted=_wanted)):
                if kept(_own_key(name, group), place):
                    yield _picture(f"{name}:{group.key}", group, split, place["fields"])
    except OutsideError:
        yield Picture(name, reason=OUTSIDE)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _own_key(name: str, group: Group) -> str:
    return key_of(f"{name}:{group.key}")


def _wanted(path: str) -> int | None:
    """The most bytes of a member that is read; None for one that is passed over."""
    extension = _key(path)[1]
    return MAX_DATA_BYTES if extension in IMAGES else TEXTS.get(extension)


def _key(path: str) -> tuple[str, str]:
    """A sample's key and the extension, in small letters."""
    match = _NAME.fullmatch(path.removeprefix("./"))
    return (match[1], match[2].lower()) if match else (path, "")


def groups(members: Iterator[UntrustedMember]) -> Iterator[Group]:
    """Gather the members of each key; a sample in which damage strikes is not given."""
    current: Group | None = None
    seen: set[bytes] = set()
    for member in members:
        key, extension = _key(member.path)
        if current is None or key != current.key:
            if current is not None:
                yield current
            mark = sha256(key.encode("utf-8", "replace")).digest()[:8]
            current = Group(key, refused="duplicate" if mark in seen else "")
            seen.add(mark)
        if extension in current.members:
            current.refused = current.refused or "duplicate"
        current.refused = current.refused or member.refused
        if extension in TEXTS or (extension in IMAGES and not current.members.keys() & set(IMAGES)):
            current.members[extension] = member.data  # of several pictures the first
    if current is not None:
        yield current


def _picture(name: str, group: Group, split: str, fields: Sequence[str]) -> Picture:
    own_key, name = key_of(name), _text(name)
    if group.refused:
        return Picture(name, reason=group.refused)
    image = next((extension for extension in group.members if extension in IMAGES), None)
    if image is None:
        return Picture(name, reason="no_image")
    facts: dict[str, Any] = {}
    try:
        if "json" in group.members:
            facts = parse_object(group.members["json"])
    except ValueError:
        return Picture(name, reason="bad_json")
    try:
        label = facts.get("label") if isinstance(facts.get("label"), int) else None
        label = clean_label(_number(group.members["cls"]) if "cls" in group.members else label)
    except ValueError:
        return Picture(name, reason="label_out_of_range")
    facts = others(facts)
    if TXT in group.members:
        facts[TXT] = group.members[TXT].decode("utf-8", "replace")
    caption = first_text(facts, fields)
    keys = tuple(dict.fromkeys((_text(group.key), _text(group.key).rpartition("/")[2])))
    return Picture(name, group.members[image], "", split, label, None, caption, keys, own_key)


def _number(digits: bytes) -> int:
    if not _DIGITS.fullmatch(digits.strip()):
        raise ValueError("no number")
    return int(digits)


def _text(key: str) -> str:
    return key.encode("utf-8", "replace").decode()
