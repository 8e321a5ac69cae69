"""What WordNet's own files (https://wordnet.princeton.edu, version 3.0) say: words, kinds, definitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FILES = {"noun": "data.noun", "verb": "data.verb", "adjective": "data.adj", "adverb": "data.adv"}
KINDS = {
    5: "animal", 6: "artifact", 8: "body", 13: "food", 15: "location", 17: "object", 18: "person",
    19: "phenomenon", 20: "plant", 25: "shape", 27: "substance",
}  # fmt: skip
"""Of WordNet's lexicographer files, those of nouns that can be seen, by number."""


@dataclass(frozen=True, kw_only=True)
class Synset:
    """Words of one meaning.

    Attributes:
        part: "noun", "verb", "adjective" or "adverb".
        kind: What a noun is, one of `KINDS`; empty for what cannot be seen.
        names: Its words, with spaces.
        definition: What it means.
        examples: Sentences and phrases that use it.
    """

    part: str
    kind: str
    names: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]


def read(folder: Path) -> list[Synset]:
    """All synsets, in the files' order.

    Raises:
        FileNotFoundError: The folder is not WordNet's.
    """
    if missing := [name for name in FILES.values() if not (folder / name).is_file()]:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}: it should be WordNet's `dict` folder; Debian's package "
            "wordnet-base puts it in /usr/share/wordnet"
        )
    return [synset for part, name in FILES.items() for synset in _synsets(part, folder / name)]


def _synsets(part: str, file: Path) -> Iterator[Synset]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            continue  # the licence
        fields, _, gloss = line.partition(" | ")
        _, kind, _, count, *rest = fields.split(" ")
        names = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in rest[: 2 * int(count, 16) : 2]]
        definition = gloss.split('; "')[0].split(' "')[0].strip(" ;")
        yield Synset(
            part=part, kind=KINDS.get(int(kind), "") if part == "noun" else "", names=tuple(names),
            definition=definition, examples=tuple(re.findall(r'"([^"]+)"', gloss)),
        )  # fmt: skip
