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

_MARKUP = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[a-zA-Z!][^<>]*>", re.DOTALL | re.IGNORECASE
)
ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)\S+|\S+@\S+\.\w{2,}", re.IGNORECASE)
_FILE_NAME = re.compile(r"[^\s]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)", re.IGNORECASE)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
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
        if self.max_characters < 1:
            raise ValueError(
                f"captioner.alt_text.max_characters must be at least 1, got {self.max_characters}"
            )


def clean_alt_text(text: str | None, config: AltTextConfig) -> tuple[str, str | None]:
    """Clean one alt-text.

    Returns:
        The caption and None, or "" and the reason why there is none: "empty", "file_name" (nothing but a
        file's name) or "no_words" (nothing readable).
    """
    if text is None or not text.strip():
        return "", "empty"
    text = html.unescape(html.unescape(text))  # pages often escape twice
    text = ADDRESS.sub(" ", _MARKUP.sub(" ", text))
    if config.emoji == "remove":
        text = _EMOJI.sub(" ", text)
    text = " ".join(_printable(unicodedata.normalize("NFC", text)).split()).strip(_EDGES)
    if _FILE_NAME.fullmatch(text):
        return "", "file_name"
    text = _cut(text, config.max_characters)
    if not any(character.isalpha() for character in text):
        return "", "no_words"
    return text, None


def _printable(text: str) -> str:
    """Replace separators by spaces and drop control characters, except joiners inside words."""
    kept: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if category[0] == "Z" or character in "\t\n\r\v\f":
            kept.append(" ")
        elif category[0] != "C" or (
            character in _JOINERS and kept and unicodedata.category(kept[-1])[0] in "LMS"
        ):
            kept.append(character)
    return "".join(kept)


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = text[: limit + 1].rpartition(" ")[0] or text[:limit]
    return head.rstrip(_EDGES)
