"""Stage photograph_folder: the demo's photographs as a folder of labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from examples.photographs.coyo import CoyoConfig, make_corpus
from pipelines.dag.stage import Artifact, Stage, Workspace


class PhotographFolder(Stage):
    """Write the crops of the demo's web, without its faults, as {train,val}/{subject}/{name}.jpg."""

    name, inputs, output, version = "photograph_folder", (), "pictures", 1

    def __init__(self, config: CoyoConfig) -> None:
        super().__init__(replace(config, fault_fraction=0.0))

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        corpus = make_corpus(self.config)
        for row in corpus.table.select(["url", "split", "subject"]).to_pylist():
            address = row["url"].removeprefix("http://")
            with out.create(f"{row['split']}/{row['subject']}/{address.rpartition('/')[2]}") as file:
                file.write(corpus.files[address])
        return {
            "rows_out": corpus.table.num_rows,
            "bytes": sum(len(content) for content in corpus.files.values()),
        }
