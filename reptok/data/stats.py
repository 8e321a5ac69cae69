"""What a dataset holds, in numbers and as a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from reptok.data.columns import SAMPLES, read_table
from reptok.data.excluded import read_excluded
from reptok.data.images import centre_crop, decode_image
from reptok.data.index import INDEX, DatasetIndex, ShardEntry, parse_index
from reptok.data.remote import DataPath, readable, some_at_a_time
from reptok.data.rows import ImageRows
from reptok.data.shards import parse_object
from reptok.data.verdict_stats import describe_verdicts, verdicts_of
from reptok.data.verify import MANIFEST

QUANTILES = (0, 5, 25, 50, 75, 95, 100)
SHEET_TILE, SHEET_COLUMNS, SHEET_CAPTION = 128, 8, 14
LARGEST_CLASSES = 10


@dataclass(frozen=True)
class SplitStats:
    """One split: samples, shards, bytes of the tars, and captions.

    Attributes:
        rows: Samples.
        shards: Tars.
        bytes: Of the tars.
        rows_per_shard: Smallest, median and largest number of samples of a tar.
        captions: Samples with a caption.
        distinct: Different captions.
        characters: Caption lengths at `QUANTILES`, over the samples that have one.
        words: The same in words.
        classes: Samples per label.
    """

    rows: int
    shards: int
    bytes: int
    rows_per_shard: tuple[int, int, int]
    captions: int
    distinct: int
    characters: tuple[int, ...]
    words: tuple[int, ...]
    classes: dict[int, int]


def split_stats(folder: DataPath, index: DatasetIndex, split: str) -> SplitStats:
    """Count one split; reads the tables, not the pixels."""
    entries = index.splits[split]
    lengths: list[np.ndarray] = [np.empty(0, np.int32)]
    words: list[np.ndarray] = [np.empty(0, np.int32)]
    classes: dict[int, int] = {}
    digests: list[np.ndarray] = [np.empty(0, np.int64)]

    def read(entry: ShardEntry) -> pa.Table:
        place = folder / f"{entry.shard}.parquet"
        return read_table(readable(place), SAMPLES, str(place), columns=["caption", "label"])

    for table in some_at_a_time(read, entries):
        captions = [caption for caption in table.column("caption").to_pylist() if caption]
        lengths.append(np.array([len(caption) for caption in captions], np.int32))
        words.append(np.array([len(caption.split()) for caption in captions], np.int32))
        digests.append(np.array([hash(caption) for caption in captions], np.int64))
        for label in table.column("label").to_pylist():
            if label is not None:
                classes[label] = classes.get(label, 0) + 1
    every = np.concatenate(lengths)
    per_shard = [entry.rows for entry in entries] or [0]
    return SplitStats(
        rows=sum(entry.rows for entry in entries),
        shards=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        rows_per_shard=(min(per_shard), int(np.median(per_shard)), max(per_shard)),
        captions=len(every),
        distinct=len(np.unique(np.concatenate(digests))),
        characters=_quantiles(every),
        words=_quantiles(np.concatenate(words)),
        classes=dict(sorted(classes.items())),
    )


def describe(folder: DataPath) -> Iterator[str]:
    """Yield the lines that tell what a dataset folder holds.

    Raises:
        ValueError: Its index or a table is damaged.
    """
    index = read_index(folder)
    names = index.class_names
    yield f"{folder}: images of {index.image_size} px, {len(names) if names else 'no'} classes"
    for split in index.splits:
        found = split_stats(folder, index, split)
        low, middle, high = found.rows_per_shard
        yield (
            f"{split}: {found.rows:,} samples in {found.shards:,} shards ({low:,} to {high:,} each, median "
            f"{middle:,}), {found.bytes / 1e6:,.1f} MB, "
            f"{found.bytes / max(found.rows, 1) / 1e3:,.1f} kB a sample"
        )
        share = _percent(found.captions, found.rows)
        yield f"  captions: {found.captions:,} ({share}), {found.distinct:,} distinct"
        if found.captions:
            marks = ", ".join(f"{quantile} %" for quantile in QUANTILES)
            yield f"  characters at {marks}: {', '.join(map(str, found.characters))}"
            yield f"  words at {marks}: {', '.join(map(str, found.words))}"
        if found.classes:
            yield f"  samples per class: {', '.join(_largest(found.classes, names))}"
    yield from success(folder)
    excluded = read_excluded(folder)
    if excluded:
        yield f"passed over by trainings, as twins in other shards: {sum(map(len, excluded.values())):,}"
    if (verdicts := verdicts_of(folder)) is not None:
        yield from describe_verdicts(verdicts)


def success(folder: DataPath) -> Iterator[str]:
    """Yield what became of the rows that went in, as the manifest tells it; nothing without a manifest."""
    if not (folder / MANIFEST).is_file():
        return
    stats = parse_object((folder / MANIFEST).read_bytes()).get("stats")
    if isinstance(stats, dict) and stats.get("rows_in"):
        rows = stats["rows_in"]
        yield f"success: {stats['rows_out']:,.0f} of {rows:,.0f} rows ({_percent(stats['rows_out'], rows)})"
        dropped = {k.removeprefix("dropped_"): v for k, v in stats.items() if k.startswith("dropped_") and v}
        for reason, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0])):
            yield f"  dropped, {reason}: {count:,.0f} ({_percent(count, rows)})"


def contact_sheet(folder: DataPath, images: int) -> Image.Image:
    """Draw `images` samples, evenly spread over the whole dataset, each above the begin of its caption.

    Raises:
        ValueError: The dataset is empty or damaged.
    """
    index = read_index(folder)
    shards = [(entry.shard, entry.rows) for _, entry in index.shards if entry.rows]
    total = sum(rows for _, rows in shards)
    if not total:
        raise ValueError(f"{folder} has no samples")
    chosen = np.linspace(0, total - 1, min(images, total)).round().astype(int)
    sheet_rows = -(-len(chosen) // SHEET_COLUMNS)
    height = SHEET_TILE + SHEET_CAPTION
    sheet = Image.new("RGB", (min(len(chosen), SHEET_COLUMNS) * SHEET_TILE, sheet_rows * height), "white")
    draw, place, start = ImageDraw.Draw(sheet), 0, 0
    for shard, rows in shards:
        numbers = chosen[(chosen >= start) & (chosen < start + rows)] - start
        start += rows
        if not len(numbers):
            continue
        tar = ImageRows(folder / f"{shard}.tar")
        table = read_table(readable(folder / f"{shard}.parquet"), SAMPLES, shard, columns=["caption"])
        captions = table.column("caption")
        for number in numbers:
            x, y = place % SHEET_COLUMNS * SHEET_TILE, place // SHEET_COLUMNS * height
            tile = Image.fromarray(centre_crop(decode_image(tar.jpg(int(number))), SHEET_TILE))
            sheet.paste(tile, (x, y))
            text = captions[int(number)].as_py().encode("ascii", "replace").decode()
            draw.text((x + 2, y + SHEET_TILE + 1), text[: SHEET_TILE // 6 - 1], fill="black")
            place += 1
    return sheet


def read_index(folder: DataPath) -> DatasetIndex:
    """Read a dataset folder's index.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    try:
        return parse_index((folder / INDEX).read_bytes(), str(folder / INDEX))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} is no dataset: it has no {INDEX}") from None


def _quantiles(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(q) for q in np.percentile(values, QUANTILES, method="nearest")) if len(values) else ()


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _largest(classes: dict[int, int], names: tuple[str, ...] | None) -> list[str]:
    ordered = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    shown = [
        f"{names[label] if names and 0 <= label < len(names) else label} {count:,}"
        for label, count in ordered[:LARGEST_CLASSES]
    ]
    more = len(ordered) - len(shown)
    return [*shown, f"and {more} more, the smallest {ordered[-1][1]:,}"] if more else shown
