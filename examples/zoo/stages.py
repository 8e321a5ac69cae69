"""The zoo's trainings as stages: a recipe, and what was trained before, become a folder of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from pipelines.dag import own_process
from pipelines.dag.artifact import Artifact
from pipelines.dag.failures import described
from pipelines.dag.stage import Stage
from pipelines.dag.stage_log import RunHandle, StageLog
from pipelines.dag.workspace import Workspace
from pipelines.stages.train_generator import TrainGenerator


class TrainFolder(Stage):
    """A training by the zoo's own loop, resumed from its scratch, whose folder is the artifact.

    It has a process of its own: random numbers, threads and torch's initialisers, which libraries switch off
    while they load a model, are a whole process's.
    """

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        stats: dict[str, float]
        stats, failure = own_process.call(_train, self, inputs, out, out.log.handle(), shown=True)
        if failure:
            raise RuntimeError(failure)
        out.publish_folder(_folder(out))
        return stats

    @abstractmethod
    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        """Train, save into `folder`, and return the figures."""


def _folder(out: Workspace) -> Path:
    return out.scratch / "saved"


def _train(
    stage: TrainFolder, inputs: Mapping[str, Artifact], out: Workspace, handle: RunHandle | None
) -> tuple[dict[str, float], str]:
    """Figures, or what went wrong."""
    out.log = StageLog.attach(handle, stage.name)
    try:
        return dict(stage.train(inputs, _folder(out), out)), ""
    except Exception as error:
        return {}, described(error)
    finally:
        out.log.flush()


class TrainAutoencoder(TrainFolder):
    """A diffusers `AutoencoderKL` folder, from the demo's photographs; see `examples/zoo/autoencoder.py`."""

    name, output = "train_autoencoder", "vae"
    modules = ("examples.zoo.autoencoder",)

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.autoencoder import train_autoencoder

        return train_autoencoder(self.config, folder, out.scratch, out.log.metrics)


class PretrainEncoder(TrainFolder):
    """A timm ViT folder, by self-distillation on the demo's photographs; see `examples/zoo/encoder.py`."""

    name, output = "pretrain_encoder", "encoder"
    modules = ("examples.zoo.encoder",)

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.encoder import train_encoder

        return train_encoder(self.config, folder, out.scratch, out.log.metrics)


class TrainTextEncoder(TrainFolder):
    """A transformers `CLIPTextModel` folder, against the encoder; see `examples/zoo/text_encoder.py`."""

    name, inputs, output = "train_text_encoder", ("encoder",), "text_encoder"
    modules = ("examples.zoo.text_encoder",)

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.text_encoder import train_text_encoder

        encoder = inputs["encoder"].local_path()
        return train_text_encoder(self.config, encoder, folder, out.scratch, out.log.metrics)


class TrainCaptioner(TrainFolder):
    """A transformers InternVL folder with processor and template, from the photographs and their alt-texts.

    See `examples/zoo/captioner.py`.
    """

    name, inputs, output = "train_captioner", ("encoder",), "captioner"
    modules = ("examples.zoo.captioner", "reptok.captioner")

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.captioner import train_captioner

        encoder = inputs["encoder"].local_path()
        return train_captioner(self.config, encoder, folder, out.scratch, out.log.metrics)


class TrainEnglish(TrainFolder):
    """A transformers `ElectraModel` folder with its tokenizer, against a sentence encoder of a package.

    See `examples/zoo/english.py`.
    """

    name, output = "train_english", "english"
    modules = ("examples.zoo.english",)

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.english import train_english

        return train_english(self.config, Path(self.config.wordnet), folder, out.scratch, out.log.metrics)


class TrainEmojiAutoencoder(TrainFolder):
    """A diffusers `AutoencoderKL` folder, from emoji; see `examples/zoo/autoencoder.py` and `emoji.py`."""

    name, output = "train_emoji_autoencoder", "emoji_vae"
    modules = ("examples.zoo.autoencoder", "examples.zoo.emoji")

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.autoencoder import train_autoencoder
        from examples.zoo.emoji import draw

        return train_autoencoder(self.config, folder, out.scratch, out.log.metrics, draw)


class PretrainEmojiEncoder(TrainFolder):
    """A timm ViT folder, by self-distillation on emoji; see `examples/zoo/encoder.py` and `emoji.py`."""

    name, output = "pretrain_emoji_encoder", "emoji_encoder"
    modules = ("examples.zoo.encoder", "examples.zoo.emoji")

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.emoji import draw
        from examples.zoo.encoder import train_encoder

        return train_encoder(self.config, folder, out.scratch, out.log.metrics, draw, bank="val")


class TrainEmojiTextEncoder(TrainFolder):
    """A `CLIPTextModel` folder, against the emoji's encoder; see `examples/zoo/emoji_text.py`."""

    name, inputs, output = "train_emoji_text_encoder", ("emoji_encoder",), "emoji_text_encoder"
    modules = ("examples.zoo.emoji_text",)

    def train(self, inputs: Mapping[str, Artifact], folder: Path, out: Workspace) -> Mapping[str, float]:
        from examples.zoo.emoji_text import train_emoji_text_encoder

        encoder = inputs["emoji_encoder"].local_path()
        return train_emoji_text_encoder(self.config, encoder, folder, out.scratch, out.log.metrics)


class TrainClassGenerator(TrainGenerator):
    """The training of a generator with another condition, in a workflow that makes both."""

    name, output = "train_class_generator", "class_generator"
