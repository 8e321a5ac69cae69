"""Stage index_captions: captions that stand in another table than the pictures, ready to be found by name."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

from pipelines.captions.joined import NAMES, TEXTS, write_texts
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.sources.captions import JoinConfig
from pipelines.urls.source import SUFFIXES, find_sources, read_source
from reptok.data.shards import parse_object

LINES = (".jsonl", ".jsonl.gz")


class IndexCaptions(Stage):
    """Make an index of a table's captions; import_images and caption look their samples up in it."""

    name, output, version = "index_captions", "texts", 1
    config: JoinConfig

    def __init__(self, config: JoinConfig) -> None:
        super().__init__(replace(config, sample_key="", listing=_listing(config.table)))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        texts: Any
        with out.create(TEXTS) as texts, out.create(NAMES) as names:
            found, missing = write_texts(self._rows(), texts, cast(Any, names))
        if not found:
            raise ValueError(
                f"captions.join: no row of {', '.join(self.config.table)} has a name and a caption"
            )
        return {"rows_in": found + missing, "rows_out": found, "dropped_no_caption": missing}

    def _rows(self) -> Iterator[tuple[Any, Any]]:
        columns = {"captions.join.key": self.config.key, "captions.join.text": self.config.text}
        for system, path in find_sources(self.config.table, (*SUFFIXES, *LINES)):
            with system.open(path, "rb") as file:
                if path.endswith(LINES):
                    with gzip.open(file) if path.endswith(".gz") else file as lines:
                        yield from _entries(lines, path, *columns.values())
                    continue
                for table in read_source(file, path, columns, columns):
                    yield from zip(*(table.column(name).to_pylist() for name in columns), strict=True)


def _entries(lines: Iterable[bytes], path: str, key: str, text: str) -> Iterator[tuple[Any, Any]]:
    """Name and caption of each line of a file of JSON objects."""
    for number, line in enumerate(lines, 1):
        try:
            row = parse_object(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
        yield row.get(key), row.get(text)


def _listing(places: tuple[str, ...]) -> str:
    """Digest of the sizes and times of local files; one elsewhere is known by its place alone."""
    digest = sha256()
    for place in places:
        if "://" in place:
            continue
        for system, path in find_sources([place], (*SUFFIXES, *LINES)):
            facts = system.info(path)
            digest.update(f"{path.rpartition('/')[2]}\0{facts['size']}\0{facts.get('mtime')}\0".encode())
    return digest.hexdigest()[:16]
