"""Text of strangers on a terminal: names of classes, files and hosts must not steer it."""

from __future__ import annotations

import unicodedata


def visible(text: object) -> str:
    """A text without what a terminal obeys: control, format and bidirectional characters become escapes.

    Line ends and tabs stay.
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character)[0] not in "C"
        else character.encode("unicode_escape").decode()
        for character in str(text)
    )
