"""Pictures for people: labelled grids of images, dot charts and curves, as PIL images.

Backgrounds are transparent and ink is a middle grey: one picture for light and for dark pages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#808080"
COLOURS = ("#8d99a6", "#3f7fd1", "#e07b39", "#4f9d69", "#a564b0", "#c2a032", "#d1556f", "#3fa7b5")
FONT_SIZE = 15
GAP = 6

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a grid: images with a label on their left."""

    images: Sequence[Image.Image]
    label: str = ""


def grid(
    rows: Sequence[Row], columns: Sequence[tuple[str, int]] = (), tile: int = 112, label_width: int = 0
) -> Image.Image:
    """Lay images out in rows under column titles.

    Args:
        rows: Lines with equally many images.
        columns: (title, number of columns under it), left to right; a wider gap parts these groups.
        tile: Side of a tile in pixels; images are scaled to it.
        label_width: Pixels for the row labels, which wrap; by default as wide as the longest label.

    Raises:
        ValueError: If the rows differ in length or the columns do not add up to it.
    """
    width = len(rows[0].images)
    spans = [span for _, span in columns] or [width]
    if any(len(row.images) != width for row in rows) or sum(spans) != width:
        raise ValueError(f"rows of {[len(row.images) for row in rows]} images do not fit columns {spans}")
    font = _font()
    if not label_width and any(row.label for row in rows):
        label_width = round(max(font.getlength(row.label) for row in rows)) + 3 * GAP
    lefts = _left_edges(spans, tile, label_width)
    titles = [_wrap(title, font, span * (tile + GAP), 2) for title, span in columns]
    title_height = max(((FONT_SIZE + 4) * len(lines) + GAP for lines in titles), default=0)
    canvas = Image.new("RGBA", (lefts[-1] + tile, title_height + len(rows) * (tile + GAP) - GAP))
    pen, mask = ImageDraw.Draw(canvas), _rounded(tile)
    first = 0
    for lines, span in zip(titles, spans, strict=False):
        middle = (lefts[first] + lefts[first + span - 1] + tile) / 2
        above = (middle, title_height - GAP)
        pen.multiline_text(above, "\n".join(lines), INK, font, anchor="md", align="center")
        first += span
    for number, row in enumerate(rows):
        top = title_height + number * (tile + GAP)
        if row.label:
            text = "\n".join(_wrap(row.label, font, label_width - 2 * GAP, tile // (FONT_SIZE + 4)))
            pen.multiline_text(
                (label_width - 2 * GAP, top + tile / 2), text, INK, font, anchor="rm", align="right"
            )
        for left, image in zip(lefts, row.images, strict=True):
            resized = image.convert("RGB").resize((tile, tile), Image.Resampling.BICUBIC)
            canvas.paste(resized, (left, top), mask)
    return canvas


def stack(pictures: Sequence[Image.Image], gap: int = 4 * GAP) -> Image.Image:
    """Put pictures below each other, aligned on the left."""
    height = sum(picture.height + gap for picture in pictures) - gap
    canvas = Image.new("RGBA", (max(picture.width for picture in pictures), height))
    top = 0
    for picture in pictures:
        canvas.paste(picture, (0, top))
        top += picture.height + gap
    return canvas


def dots(names: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> Image.Image:
    """Draw one line per name with a dot per series: how methods compare, subject by subject.

    Lines are sorted by the last series, its best value on top. Values that are NaN are left out.
    """
    order = np.argsort(np.nan_to_num(list(series.values())[-1], nan=-np.inf), kind="stable")
    figure, axes = _axes(9.0, 0.9 + 0.27 * len(names))
    heights = np.arange(len(names))
    values = np.array([list(line) for line in series.values()], dtype=float)[:, order]
    axes.hlines(heights, np.nanmin(values, 0), np.nanmax(values, 0), colors=INK, alpha=0.35, linewidth=2)
    for (name, _), line, colour in zip(series.items(), values, _colours(len(series)), strict=True):
        axes.plot(line, heights, "o", color=colour, markersize=8, label=name)
    axes.set_yticks(heights, [names[i] for i in order])
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel(unit, color=INK)
    axes.grid(axis="x", color=INK, alpha=0.2)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), frameon=False, labelcolor=INK
    )
    return _draw(figure)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> Image.Image:
    """Draw lines of (x values, y values) over one pair of axes; single points are marked."""
    figure, axes = _axes(9.0, 3.6)
    for (name, (x, y)), colour in zip(series.items(), _colours(len(series)), strict=True):
        axes.plot(x, y, "o-" if len(x) < 30 else "-", color=colour, linewidth=2, markersize=4, label=name)
    return _labelled(figure, axes, x_label, y_label, legend=len(series) > 1)


def spreads(
    series: Mapping[str, Sequence[tuple[str, Sequence[float]]]], x_label: str, y_label: str
) -> Image.Image:
    """Draw lines through the means at each place, with a dot for each value there.

    Args:
        series: Places and their values, by name. Places that are all numbers stand where they belong, other
            ones side by side.
        x_label: What places are.
        y_label: What values are.
    """
    places = list(dict.fromkeys(place for line in series.values() for place, _ in line))
    try:
        at = {place: float(place) for place in places}
    except ValueError:
        at = {place: float(number) for number, place in enumerate(places)}
    figure, axes = _axes(9.0, 3.2)
    for (name, line), colour in zip(series.items(), _colours(len(series)), strict=True):
        known = sorted((at[place], values) for place, values in line if values)
        axes.plot(
            [x for x, _ in known], [np.mean(v) for _, v in known], color=colour, linewidth=2, label=name
        )
        dots_at = [(x, value) for x, values in known for value in values]
        axes.plot(*zip(*dots_at, strict=True), "o", color=colour, markersize=6, alpha=0.7)
    axes.set_xticks(list(at.values()), places)
    return _labelled(figure, axes, x_label, y_label, legend=len(series) > 1)


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)] if count > 1 else [COLOURS[1]]


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure, axes


def _labelled(figure: Figure, axes: Axes, x_label: str, y_label: str, *, legend: bool) -> Image.Image:
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=INK, alpha=0.2)
    if legend:
        axes.legend(frameon=False, labelcolor=INK)
    return _draw(figure)


def _draw(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGBA")


def _font() -> Font:
    """Matplotlib's own font: Pillow's knows no dashes and no accents."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", FONT_SIZE)


def _left_edges(spans: Sequence[int], tile: int, left: int) -> list[int]:
    """Left edge of every column; groups stand twice as far apart as columns when a group has several."""
    edges: list[int] = []
    for span in spans:
        for _ in range(span):
            edges.append(left)
            left += tile + GAP
        left += 3 * GAP if max(spans) > 1 else 0
    return edges


def _rounded(tile: int) -> Image.Image:
    """Mask of a tile with softly rounded corners."""
    mask = Image.new("L", (4 * tile, 4 * tile))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * tile - 1, 4 * tile - 1), 4 * tile // 16, fill=255)
    return mask.resize((tile, tile), Image.Resampling.LANCZOS)


def _shorten(text: str, font: Font, width: float) -> str:
    """Cut a text that is wider than `width`, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _wrap(text: str, font: Font, width: float, max_lines: int) -> list[str]:
    """Break a text into at most `max_lines` lines of `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > max_lines:
        lines = [*lines[: max_lines - 1], " ".join(lines[max_lines - 1 :])]
    return [_shorten(line, font, width) for line in lines]
