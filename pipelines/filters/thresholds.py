"""Pictures on both sides of a filter's threshold, for people to see whether it lies well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard
from pipelines.dag.workspace import Workspace
from pipelines.filters.verdicts import verdict_table
from pipelines.reports.pictures import Row, grid
from reptok.data.columns import IMAGES, VERDICTS, read_table
from reptok.data.images import centre_crop, decode_image

MOST_TABLES, COLUMNS, TILE = 64, 8, 128
"""Tables that are looked at, evenly spread; pictures of each side; pixels of one."""


def threshold_page(
    images: Artifact, shards: Sequence[Shard], score: str, threshold: float, out: Workspace
) -> Image.Image | None:
    """Draw the kept and the dropped pictures whose scores are nearest to a threshold.

    Args:
        images: Tables of pictures.
        shards: Of them; all are judged.
        score: The score's name.
        threshold: Where it begins to decide.
        out: Where the verdicts lie.

    Returns:
        None if nothing has that score. What is quarantined is not shown.
    """
    names = [shard.payload["file"] for shard in _spread(shards)]
    table = pa.concat_tables([_scored(out, name, number, score) for number, name in enumerate(names)])
    sides = []
    for kept in (True, False):
        side = table.filter(pc.equal(table["kept"], kept))
        distance = np.abs(side["score"].to_numpy() - threshold)
        nearest = side.take(np.argsort(distance, kind="stable")[:COLUMNS]).sort_by("score").to_pylist()
        if nearest:
            label = (
                f"{'kept' if kept else 'dropped'}, {nearest[0]['score']:.4g} to {nearest[-1]['score']:.4g}"
            )
            sides.append((label, [_picture(images, names[row["table"]], row["key"]) for row in nearest]))
    if not sides:
        return None
    width = max(len(pictures) for _, pictures in sides)
    empty = Image.new("RGB", (TILE, TILE), "white")
    rows = [
        Row(images=[*pictures, *[empty] * (width - len(pictures))], label=label) for label, pictures in sides
    ]
    return grid(rows, [(f"{score}, threshold {threshold:.4g}", width)], tile=TILE)


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    places = np.linspace(0, len(shards) - 1, min(MOST_TABLES, len(shards))).round().astype(int)
    return [shards[place] for place in places]


def _scored(out: Workspace, images_table: str, number: int, score: str) -> pa.Table:
    """Key, kept, score and table of those that have the score and may be seen."""
    name = verdict_table(images_table)
    with out.folder.open(name) as file:
        table = read_table(file, VERDICTS, name, ["key", "kept", "quarantined", score])
    table = table.filter(pc.and_(pc.is_valid(table[score]), pc.invert(table["quarantined"])))
    numbers = pa.array(np.full(table.num_rows, number), pa.int64())
    return pa.table({"key": table["key"], "kept": table["kept"], "score": table[score], "table": numbers})


def _picture(images: Artifact, name: str, key: str) -> Image.Image:
    """One picture of a table, of which no more than its group of rows is read."""
    with images.open(name) as file:
        place = read_table(file, IMAGES, name, ["key"]).column("key").to_pylist().index(key)
        parquet = pq.ParquetFile(file)
        group = 0
        while place >= (rows := parquet.metadata.row_group(group).num_rows):
            place, group = place - rows, group + 1
        jpg = parquet.read_row_group(group, ["jpg"]).column("jpg")[place].as_py()
    return Image.fromarray(centre_crop(decode_image(jpg), TILE))
