"""Stage: train the zoo's text encoder against its frozen image encoder."""

from __future__ import annotations

from collections.abc import Mapping

from examples.zoo.recipes import TextEncoderRecipe
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class TrainTextEncoder(Stage):
    """A transformers `CLIPTextModel` folder with its tokenizer; see `examples/zoo/text_encoder.py`."""

    name, inputs, output = "train_text_encoder", ("encoder",), "text_encoder"
    modules = ("examples.zoo.text_encoder",)

    def __init__(self, config: TextEncoderRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from examples.zoo.text_encoder import train_text_encoder

        folder = out.scratch / "saved"
        encoder = inputs["encoder"].local_path()
        stats = train_text_encoder(self.config, encoder, folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
