"""Stage train_class_generator: a generator conditioned on labels, beside the one conditioned on text."""

from __future__ import annotations

from pipelines.stages.train_generator import TrainGenerator


class TrainClassGenerator(TrainGenerator):
    """The same training with another condition, in a workflow that makes both generators."""

    name, output = "train_class_generator", "class_generator"
