"""Captions for images: from their alt-text, cleaned.

Alt-texts are written by strangers. A caption is plain text on one line: no markup, no addresses, no control
characters (bidirectional overrides among them); what is left is data and never formatted into code or markup.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from typing import ClassVar

from pipelines.ops.op import Batch, Op

_MARKUP = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?[a-zA-Z!][^<>]*>", re.DOTALL | re.IGNORECASE
)
_ADDRESS = re.compile(r"(?:https?://|ftp://|www\.)\S+|\S+@\S+\.\w{2,}", re.IGNORECASE)
_FILE_NAME = re.compile(r"[^\s]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif)", re.IGNORECASE)
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a-\u23ff\ufe0e\ufe0f\u20e3\U000e0020-\U000e007f]"
)
_JOINERS = "\u200c\u200d"
_EDGES = " \t|\u2022\u00b7\"'`~_-\u2013\u2014,;:"


@dataclass(frozen=True, kw_only=True)
class CaptionerConfig:
    """Which captioner, and what it may write.

    Attributes:
        kind: "alt_text".
        max_characters: Longer captions are cut at a word's end.
        emoji: "remove" or "keep".
        fallback: The caption of an image whose alt-text says nothing.
    """

    kind: str = "alt_text"
    max_characters: int = 300
    emoji: str = "remove"
    fallback: str = ""


@dataclass(frozen=True)
class AltTextCaptioner(Op):
    """Clean the alt-text and keep it; `reason` says why a caption is the fallback.

    Reasons: "empty" (no alt-text), "file_name" (nothing but a file's name), "no_words" (nothing readable).
    """

    config: CaptionerConfig

    reads: ClassVar[tuple[str, ...]] = ("text",)
    writes: ClassVar[tuple[str, ...]] = ("caption", "source", "reason")

    def __call__(self, batch: Batch) -> Batch:
        """Add `caption`, `source` ("alt_text" or "fallback") and `reason` (None for an alt-text)."""
        cleaned = [clean_alt_text(text, self.config) for text in batch["text"]]
        return {
            **batch,
            "caption": [caption or self.config.fallback for caption, _ in cleaned],
            "source": ["fallback" if reason else "alt_text" for _, reason in cleaned],
            "reason": [reason for _, reason in cleaned],
        }


def build_captioner(config: CaptionerConfig) -> Op:
    """Return the captioner that `config.kind` names.

    Raises:
        ValueError: The kind or a setting is unknown.
    """
    if config.kind != "alt_text":
        raise ValueError(f"unknown captioner kind {config.kind!r}; there is: alt_text")
    if config.emoji not in ("remove", "keep"):
        raise ValueError(f"captioner.emoji must be 'remove' or 'keep', got {config.emoji!r}")
    if config.max_characters < 1:
        raise ValueError(f"captioner.max_characters must be at least 1, got {config.max_characters}")
    return AltTextCaptioner(config)


def clean_alt_text(text: str | None, config: CaptionerConfig) -> tuple[str, str | None]:
    """Clean one alt-text.

    Returns:
        The caption and None, or "" and the reason why there is none.
    """
    if text is None or not text.strip():
        return "", "empty"
    text = html.unescape(html.unescape(text))  # pages often escape twice
    text = _ADDRESS.sub(" ", _MARKUP.sub(" ", text))
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
