"""How many classes a list of URLs tells, by its column `label`; a list that lies elsewhere is not fetched."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from pipelines.urls.source import find_sources, read_source


def count_classes(places: Sequence[str]) -> int | None:
    """The classes of local lists: one more than the largest label; None for lists that lie elsewhere.

    Raises:
        ValueError: A file has no labels.
        FileNotFoundError: There is no such list.
    """
    if any("://" in place for place in places):
        return None
    largest = -1
    for system, path in find_sources(places):
        with system.open(path, "rb") as file:
            for table in read_source(file, path, {"label": "label"}, ["label"]):
                found = pc.max(table.column("label")).as_py()
                largest = max(largest, -1 if found is None else int(found))
    return largest + 1
