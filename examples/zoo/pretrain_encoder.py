"""Stage: pre-train the zoo's encoder by self-distillation on the demo's photographs."""

from __future__ import annotations

from collections.abc import Mapping

from examples.zoo.recipes import EncoderRecipe
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class PretrainEncoder(Stage):
    """A timm ViT folder; see `examples/zoo/encoder.py`."""

    name, output = "pretrain_encoder", "encoder"
    modules = ("examples.zoo.encoder",)

    def __init__(self, config: EncoderRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from examples.zoo.encoder import train_encoder

        folder = out.scratch / "saved"
        stats = train_encoder(self.config, folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
