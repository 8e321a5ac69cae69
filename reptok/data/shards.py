"""Dataset shards: WebDataset tars of `{key}.jpg`, `{key}.txt`, `{key}.json`, keys ascending.

Any WebDataset reader opens them. Ours decodes the three extensions by name and nothing else, and refuses
what a hostile or damaged archive may hold (see `tar`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from reptok.data.tar import Source, TarWriter, iterate_members, opened

EXTENSIONS = ("jpg", "txt", "json")


@dataclass(frozen=True)
class Sample:
    """One image with its caption and facts.

    Attributes:
        key: Unique in the dataset, of [A-Za-z0-9_-]; `keys.key_of` makes it of what the sample is.
        jpg: The JPEG file's bytes.
        caption: Text, possibly empty.
        info: JSON-able facts: label, subject, width, height, url, ... where known.
    """

    key: str
    jpg: bytes
    caption: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)


class SampleWriter:
    """Write samples to a tar one after the other; the same samples give the same bytes."""

    def __init__(self, file: BinaryIO):
        """Write to `file`, which stays open and needs no seeking."""
        self._tar = TarWriter(file)
        self._previous = ""
        self.rows = 0

    def add(self, sample: Sample) -> None:
        """Append a sample.

        Raises:
            ValueError: Its key is doubled, out of order or has forbidden characters.
        """
        if sample.key <= self._previous:
            raise ValueError(
                f"key {sample.key!r} does not come after {self._previous!r}; keys must be unique, ascending"
            )
        info = json.dumps(dict(sample.info), sort_keys=True, ensure_ascii=False)
        self._tar.add(f"{sample.key}.jpg", sample.jpg)
        self._tar.add(f"{sample.key}.txt", sample.caption.encode())
        self._tar.add(f"{sample.key}.json", info.encode())
        self._previous = sample.key
        self.rows += 1

    def close(self) -> None:
        """Write the end of the archive; the file object stays open."""
        self._tar.close()


def write_samples(file: BinaryIO, samples: Iterable[Sample]) -> int:
    """Write all samples as one tar, see `SampleWriter`; return how many there were."""
    writer = SampleWriter(file)
    for sample in samples:
        writer.add(sample)
    writer.close()
    return writer.rows


def read_samples(source: Source) -> Iterator[Sample]:
    """Stream the samples of a tar written by `write_samples`.

    Raises:
        ValueError: The archive is damaged, or holds a key that is doubled or out of order, an unknown
            extension, a folder, a link, an absolute path or a sample that is not complete.
    """
    with opened(source) as (file, name):
        parts: dict[str, bytes] = {}
        current = ""
        for member, data in iterate_members(file, name):
            if member.key != current:
                if current:
                    yield _sample(current, parts, name)
                if member.key < current:
                    raise ValueError(
                        f"{name}: key {member.key!r} comes after {current!r}; keys ascend, each of them once"
                    )
                current, parts = member.key, {}
            if member.extension not in EXTENSIONS or member.extension in parts:
                raise ValueError(
                    f"{name}: unexpected member {member.name!r}; a sample has one each of {EXTENSIONS}"
                )
            parts[member.extension] = data
        if current:
            yield _sample(current, parts, name)


def parse_sample(key: str, parts: Mapping[str, bytes]) -> Sample:
    """Make a sample of its members, by extension.

    Raises:
        ValueError: A member is missing, or caption or JSON cannot be decoded.
    """
    missing = [extension for extension in EXTENSIONS if extension not in parts]
    if missing:
        raise ValueError(f"sample {key!r} has no {', '.join(missing)} member; the archive is incomplete")
    try:
        caption, info = parts["txt"].decode(), parse_object(parts["json"])
    except ValueError as error:
        raise ValueError(f"sample {key!r} has an undecodable caption or JSON: {error}") from error
    return Sample(key, parts["jpg"], caption, info)


def parse_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        ValueError: It is no JSON, no object, or nested beyond what Python reads.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is expected, not {type(value).__name__}")
    return value


def _sample(key: str, parts: Mapping[str, bytes], name: str) -> Sample:
    try:
        return parse_sample(key, parts)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
