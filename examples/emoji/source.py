"""Emoji as a source: a folder of captioned pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.emoji.samples import EmojiConfig
from examples.emoji.stage import EmojiPictures
from pipelines.dag.stage import Stage
from pipelines.registry import Source


def stages(config: EmojiConfig) -> list[Stage]:
    """The pictures (artifact "emoji")."""
    return [EmojiPictures(config)]


def classes(config: EmojiConfig) -> int:
    """None: one emoji is no class of pictures.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        "generator.condition=class, and emoji have captions and no classes: choose a generator by text, such "
        "as generator=mixer_text_tiny"
    )


def tables(config: EmojiConfig) -> Iterable[tuple[str, Any]]:
    """No list of URLs."""
    return ()


SOURCE = Source(
    key="data.emoji",
    config=EmojiConfig,
    stages=stages,
    classes=classes,
    tables=tables,
    conf=Path(__file__).parent / "conf",
)
