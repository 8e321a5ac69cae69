"""Stage: real images through a published tokenizer and back."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import map_shards
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.originals import KIND, file_shards, refuse_known, with_starts
from pipelines.evaluation.reconstructing import ReconstructImagesConfig, ReconstructJob
from pipelines.evaluation.sampling import model_place, write_index
from pipelines.stages.tables import occupied


class ReconstructImages(Stage):
    """Tokenize and detokenize every image, over shards."""

    name, output = "reconstruct_images", "samples"
    modules = ("reptok.pretrained", "reptok.metrics.sample_files", "reptok.training_keys")
    config: ReconstructImagesConfig

    def __init__(self, config: ReconstructImagesConfig, originals: bool = False):
        """Reconstruct what `config.real` names, or the artifact `originals`.

        Raises:
            ValueError: no model is named.
        """
        if not config.model:
            raise ValueError("which model? model=FOLDER names a published one, model=owner/name one of a hub")
        self.inputs = (KIND,) if originals else ()
        super().__init__(config)
        self.resources = occupied(config.workers)

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        place, originals = model_place(self.config.model, inputs), inputs.get(KIND)
        if originals is None:
            shards = self.config.real.shards("samples")
        else:
            refuse_known(place, originals, out)
            shards = with_starts(file_shards(originals))
        job = ReconstructJob(place, self.config, originals)
        stats = map_shards(shards, job, out, self.config.workers)
        write_index(out, shards)
        return stats
