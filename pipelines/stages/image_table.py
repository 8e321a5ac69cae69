"""The table of images that a captioner reads, of pictures that exist."""

from __future__ import annotations

from typing import Any

from pipelines.crawl.phash import hashes
from pipelines.dag.workspace import Workspace
from reptok.data.columns import IMAGES, SUCCESS, write_table
from reptok.data.shards import Sample


class ImageTableWriter:
    """Writes the samples of a part as a table of images, which is what a captioner reads."""

    def __init__(self, out: Workspace, shard: str) -> None:
        self._out, self._shard = out, shard
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> ImageTableWriter:
        return self

    def add(self, sample: Sample) -> None:
        """Append a sample; its `info` holds the columns' values, and `file`, where it came from."""
        split = self._shard.partition("-")[0]
        row = {"text": sample.caption, "status": SUCCESS, "jpg": sample.jpg, "split": split}
        self._rows.append({**sample.info, **row, **hashes(sample.jpg)})

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            columns = {name: [row.get(name) for row in self._rows] for name in (*IMAGES.names, "file")}
            with self._out.create(image_table(self._shard)) as file:
                table: Any = file
                write_table(table, columns, IMAGES)


def image_table(shard: str) -> str:
    """The name of a part's table, of the dataset's shard that it becomes."""
    return f"images-{shard}.parquet"
