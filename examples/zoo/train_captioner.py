"""Stage: train the zoo's captioner on the demo's photographs and their alt-texts."""

from __future__ import annotations

from collections.abc import Mapping

from examples.zoo.recipes import CaptionerRecipe
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class TrainCaptioner(Stage):
    """A transformers InternVL folder with processor and chat template; see `examples/zoo/captioner.py`."""

    name, inputs, output = "train_captioner", ("encoder",), "captioner"
    modules = ("examples.zoo.captioner", "reptok.captioner")

    def __init__(self, config: CaptionerRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from examples.zoo.captioner import train_captioner

        folder = out.scratch / "saved"
        encoder = inputs["encoder"].local_path()
        stats = train_captioner(self.config, encoder, folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
