"""Stage: train the zoo's autoencoder on the demo's photographs."""

from __future__ import annotations

from collections.abc import Mapping

from examples.zoo.recipes import AutoencoderRecipe
from pipelines.dag.artifact import Artifact
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace


class TrainAutoencoder(Stage):
    """A diffusers `AutoencoderKL` folder; see `examples/zoo/autoencoder.py`."""

    name, output = "train_autoencoder", "vae"
    modules = ("examples.zoo.autoencoder",)

    def __init__(self, config: AutoencoderRecipe) -> None:
        super().__init__(config)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        from examples.zoo.autoencoder import train_autoencoder

        folder = out.scratch / "saved"
        stats = train_autoencoder(self.config, folder, out.scratch, out.log.metrics)
        out.publish_folder(folder)
        return stats
