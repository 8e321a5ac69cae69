"""What a plan can say of captions: how many of their words the chosen text encoder knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.dag.reference import ARTIFACT, refer
from pipelines.sources.folder import FolderSource
from pipelines.sources.hub import is_hub
from pipelines.sources.layouts import open_source
from pipelines.sources.metadata import caption_beside
from reptok.vocabulary import words_of

if TYPE_CHECKING:
    from pipelines.configuration.schema import Config

LOOKED_AT = 1000
"""Captions, of pictures that the listing mixes."""
MANY = 0.1


def remarks(config: Config) -> list[str]:
    """A line on a folder's captions, where a language model in a folder reads them; else none.

    Captions that are still to be downloaded or written are looked at by the evaluation.
    """
    settings, text = config.data.import_images, config.text_encoder
    if settings is None or not settings.folder or text is None:
        return []
    if settings.folder.startswith(ARTIFACT) or is_hub(settings.folder):
        return []
    folder = refer(text.path, "text_encoder.path").folder if text.kind != "open_clip" else None
    if config.generator.condition != "text" or folder is None:
        return []
    pictures = open_source(settings.folder, settings.layout, settings.captions)
    if not isinstance(pictures, FolderSource) or (found := words_of(folder, captions_of(pictures))) is None:
        return []
    line = f"captions: {found}"
    if found.unknown_share > MANY:
        line += "; what they say is lost: choose a text_encoder that knows them"
    return [line]


def captions_of(pictures: FolderSource) -> Iterator[str]:
    """Captions of the first pictures, from the metadata or beside them; what cannot be read has none."""
    for picture in pictures.pictures[:LOOKED_AT]:
        try:
            caption = pictures.captions.get(picture.path) or caption_beside(
                pictures.folder, picture.path, pictures.fields
            )
        except (OSError, ValueError):
            continue
        if caption:
            yield caption
