"""Stage photograph_web: the demo's small web of real photographs, in the place of COYO and the open web."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Any, cast

import pyarrow.parquet as pq

from examples.photographs.coyo import CoyoConfig, make_corpus
from examples.photographs.web import FAULTS_FILE, FILES, TABLE
from pipelines.dag.stage import Artifact, Stage, Workspace

_LONG_AGO = (1980, 1, 1, 0, 0, 0)


class PhotographWeb(Stage):
    """Make a COYO-schema parquet over crops of photographs, their files, and the faults of their hosts.

    coyo.parquet   the rows
    files.zip      "host/path" -> content (uncompressed)
    faults.json    how the faulty URLs are served and what is expected of their rows
    """

    name, inputs, output, version = "photograph_web", (), "web", 1

    def __init__(self, config: CoyoConfig) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        corpus = make_corpus(self.config)
        with out.create(FILES) as file, zipfile.ZipFile(cast(Any, file), "w") as archive:
            for name in sorted(corpus.files):
                archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), corpus.files[name])
        with out.create(TABLE) as file:
            pq.write_table(corpus.table, file)
        out.write_json(FAULTS_FILE, corpus.faults)
        return {
            "rows_out": corpus.table.num_rows,
            "rows_with_faults": len(corpus.faults["rows"]),
            "files": len(corpus.files),
            "bytes": sum(len(content) for content in corpus.files.values()),
        }
