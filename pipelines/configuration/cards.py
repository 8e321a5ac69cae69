"""What the chosen captioner and text encoder were trained on, as their cards say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipelines.configuration.compose import dotted
from pipelines.dag.reference import HUB, refer

CARD = "README.md"
_DATA = re.compile(r"^\|\s*data\s*\|\s*(.+?)\s*\|\s*$", re.MULTILINE)


def trained_on(values: Mapping[str, Any]) -> list[str]:
    """A sentence for each of them that takes part: the row `data` of its card."""
    said = []
    for key, role in (("captioner.model.path", "the captioner"), ("text_encoder.path", "the text encoder")):
        path = dotted(values, key)
        if not path or (key.startswith("text") and dotted(values, "generator.condition") != "text"):
            continue
        kind = dotted(values, key.rpartition(".")[0] + ".kind")
        try:
            found = refer(path, key) if kind != "open_clip" else None
        except OSError:
            continue  # whoever loads it says so
        if found is None or found.hub:
            said.append(f"{role} {key}={path}: see its card ({HUB}{path.removeprefix(HUB)})")
        elif found.folder is not None:
            card = found.folder / CARD
            row = _DATA.search(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
            told = (
                f"was trained on {row[1]}"
                if row
                else f"has no card ({CARD}) that says what it was trained on"
            )
            said.append(f"{role} {key}={path} {told}")
    return said
