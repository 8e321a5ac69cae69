"""Stage: train the zoo's captioner on the demo's photographs and their alt-texts."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.zoo.recipes import CaptionerRecipe


class TrainCaptioner(Stage):
    """A transformers InternVL folder with processor and chat template; see `pipelines/zoo/captioner.py`."""

    name, inputs, output = "train_captioner", ("encoder",), "captioner"
    modules = ("pipelines.zoo.captioner", "reptok.captioner")

    def __init__(self, config: CaptionerRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from pipelines.zoo.captioner import train_captioner

        folder = out.scratch / "saved"
        encoder = inputs["encoder"].local_path()
        stats = train_captioner(self.config, encoder, folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
