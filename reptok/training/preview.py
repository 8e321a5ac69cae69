"""Pictures of a training on its way: every process draws some of the lines, the first one has them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from reptok.training.parallel import Alone

GridRow = tuple[str, list[np.ndarray]]
"""A label, and pictures, uint8 (H, W, 3) each."""


@dataclass(frozen=True)
class Grid:
    """A table of pictures.

    Attributes:
        name: What they show.
        columns: Titles.
        rows: Lines with a picture per column.
    """

    name: str
    columns: Sequence[str]
    rows: Sequence[GridRow]


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A table of pictures that is yet to be drawn.

    Attributes:
        name: What they show.
        columns: Titles.
        labels: Of the lines; at least one.
        draw: Draws lines, int (n,) of them, with an objective in evaluation mode: uint8 (n, columns, H, W, 3)
            on any device. What a line shows depends on neither the others nor the process.
    """

    name: str
    columns: Sequence[str]
    labels: Sequence[str]
    draw: Callable[[Any, np.ndarray], torch.Tensor]


@torch.no_grad()
def draw_together(preview: Preview, objective: Any, parallel: Alone) -> Grid:
    """Let every process draw a share of the lines; all call it, within `parallel.evaluating`.

    Args:
        preview: The same in every process.
        objective: What `parallel.evaluating` gave.
        parallel: The processes.
    """
    drawn = parallel.shared(len(preview.labels), lambda lines: preview.draw(objective, lines))
    pictures = drawn.cpu().numpy()
    rows = [(label, list(line)) for label, line in zip(preview.labels, pictures, strict=True)]
    return Grid(preview.name, preview.columns, rows)
