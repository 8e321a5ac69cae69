"""Stage: train the zoo's English text encoder against a sentence encoder that a package ships."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from examples.zoo.recipes import EnglishRecipe
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class TrainEnglish(Stage):
    """A transformers `ElectraModel` folder with its tokenizer; see `examples/zoo/english.py`."""

    name, output = "train_english", "english"
    modules = ("examples.zoo.english",)

    def __init__(self, config: EnglishRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from examples.zoo.english import train_english

        folder = out.scratch / "saved"
        stats = train_english(self.config, Path(self.config.wordnet), folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
