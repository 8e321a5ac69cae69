"""Alt-texts, cleaned.

They are written by strangers. A caption is plain text on one line: no markup, no addresses, no control
characters (bidirectional overrides among them); what is left is data and never formatted into code or markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass

from reptok.bounds import Count

_MARKUP = re.compile(  # what is never closed reaches to the end, as in a browser; so no text is read twice
    r"<(script|style)\b.*?(?:</\1\s*+>|\Z)|<!--.*?(?:-->|\Z)|</?[a-zA-Z!][^<>]*+>", re.DOTALL | re.IGNORECASE
)
ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)\S++|(?<!\S)\S[^\s@]*+@\S+\.\w{2,}+", re.IGNORECASE)
"""A web address, or the word that holds a mail address; read in linear time, since a word is tried once."""
_LONG_REFERENCE = re.compile(
    r"&#(?:[0-9]{9,}+|[xX][0-9a-fA-F]{9,}+);?"
)  # of no character: Unicode ends before
_FILE_NAME = re.compile(r"[^\s]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)", re.IGNORECASE)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
_MAX_MARKS = 30
"""Combining marks in a row, as in Unicode's stream-safe format: a run takes its length squared."""
_RAW = 8, 4096
"""Characters read for each one that a caption may have, and in any case: markup takes its part."""
_MAX_CHARACTERS = 10_000
_EDGES = " \t|\u2022\u00b7\"'`~_-\u2013\u2014,;:"


@dataclass(frozen=True, kw_only=True)
class AltTextConfig:
    """What becomes of an alt-text.

    Attributes:
        max_characters: Longer captions are cut at a word's end.
        emoji: "remove" or "keep".
    """

    max_characters: Count = 300
    emoji: str = "remove"

    def __post_init__(self) -> None:
        if self.emoji not in ("remove", "keep"):
            raise ValueError(f"captioner.alt_text.emoji must be 'remove' or 'keep', got {self.emoji!r}")
        if not 1 <= self.max_characters <= _MAX_CHARACTERS:
            raise ValueError(
                f"captioner.alt_text.max_characters must be in [1, {_MAX_CHARACTERS}], "
                f"got {self.max_characters}"
            )


def clean_alt_text(text: str | None, config: AltTextConfig) -> tuple[str, str | None]:
    """Clean one alt-text, in time linear in the length of the caption that may come of it.

    Returns:
        The caption and None, or "" and the reason why there is none: "empty", "file_name" (nothing but a
        file's name) or "no_words" (nothing readable).
    """
    text = (text or "")[: max(_RAW[0] * config.max_characters, _RAW[1])]
    if not text.strip():
        return "", "empty"
    for _ in range(2):  # pages often escape twice
        text = html.unescape(_LONG_REFERENCE.sub(" ", text))
    if config.emoji == "remove":
        text = _EMOJI.sub(" ", text)
    text = _MARKUP.sub(" ", _printable(text))
    if _MARKUP.search(text):  # tags inside of tags
        text = text.replace("<", " ").replace(">", " ")
    text = unicodedata.normalize("NFC", ADDRESS.sub(" ", text))
    text = " ".join(text.split()).strip(_EDGES)
    if _FILE_NAME.fullmatch(text):
        return "", "file_name"
    text = _cut(text, config.max_characters)
    if not any(character.isalpha() for character in text):
        return "", "no_words"
    return text, None


def _printable(text: str) -> str:
    """Replace separators by spaces, drop control characters, except joiners in words, and piles of marks."""
    kept: list[str] = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category[0] == "M" else 0
        if category[0] == "Z" or character in "\t\n\r\v\f":
            kept.append(" ")
        elif category[0] == "C":
            if character in _JOINERS and kept and unicodedata.category(kept[-1])[0] in "LMS":
                kept.append(character)
        elif marks <= _MAX_MARKS:
            kept.append(character)
    return "".join(kept)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[: limit + 1].rpartition(" ")[0] or text[:limit]
    return head.rstrip(_EDGES)
