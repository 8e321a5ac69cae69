"""The real workers in this process (Ray Train's local mode), and the stages that publish what they leave."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.dag.stage import Artifact, Workspace
from pipelines.stages.train_generator import TrainGenerator, TrainGeneratorConfig
from pipelines.stages.train_tokenizer import TrainTokenizer, TrainTokenizerConfig
from pipelines.workers.generator import train_generator
from pipelines.workers.tokenizer import train_tokenizer
from reptok.autoencoder import Autoencoder, AutoencoderConfig
from reptok.decoder.transformer import DecoderConfig
from reptok.encoder.ssl import EncoderConfig
from reptok.generator.conditioning import Condition
from reptok.generator.generator import GeneratorConfig
from reptok.pretrained import load_generator, load_tokenizer
from reptok.text_encoder import TextEncoderConfig
from reptok.tokenizer import RepTok, RepTokConfig
from reptok.training.checkpoint import checkpoints
from reptok.training.loop import TrainConfig
from reptok.training.optim import OptimConfig

TRAIN = TrainConfig(
    steps=4,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, warmup_steps=2),
    ema_decay=0.5,
    log_every=2,
    eval_every=0,
)


class ListLog:
    """What `RelayLog` is to a worker."""

    def __init__(self):
        self.recorded: dict[str, float] = {}
        self.grids: list[tuple] = []

    def metrics(self, values, step):
        self.recorded |= values

    def progress(self, done, total):
        self.done = done

    def grid(self, name, columns, rows, step):
        self.grids.append((name, columns, rows, step))


def in_this_process(worker, settings) -> ListLog:
    """Run a worker under Ray Train's local mode: no actor, no cluster."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    log = ListLog()
    TorchTrainer(
        worker, train_loop_config={**settings, "log": log}, scaling_config=ScalingConfig(num_workers=0)
    ).fit()
    return log


@pytest.fixture(scope="module")
def configs(tiny_models):
    return RepTokConfig(
        encoder=EncoderConfig(name="folder", path=str(tiny_models / "encoder"), image_size=32),
        decoder=DecoderConfig(width=32, depth=1, heads=2, latent_size=4, token_dim=32),
        autoencoder=AutoencoderConfig(path=str(tiny_models / "autoencoder")),
    )


@pytest.fixture
def artifacts(tmp_path, small_dataset, configs):
    spec = Autoencoder(configs.autoencoder).spec
    folders = {
        "dataset": small_dataset.write_dataset(tmp_path / "dataset"),
        "latents": small_dataset.write_latents(tmp_path / "latents", spec, token_dim=32, latent_size=4),
        "tokens": small_dataset.write_tokens(tmp_path / "tokens", token_dim=32),
    }
    return {kind: published(kind, folder) for kind, folder in folders.items()}


def published(kind: str, folder: Path) -> Artifact:
    Workspace(str(folder)).publish({})
    return Artifact(kind, folder.name, str(folder))


def test_train_tokenizer_publishes_a_tokenizer_that_differs_by_what_was_trained(tmp_path, artifacts, configs):
    out = Workspace(str(tmp_path / "out"), "f00d")
    inputs = {kind: artifacts[kind] for kind in ("dataset", "latents")}
    settings = {**inputs, "tokenizer": configs, "train": TRAIN, "preservation_weight": 0.1, "out": out}
    log = in_this_process(train_tokenizer, settings)
    assert {
        "train/velocity",
        "train/preservation",
        "val/loss_segment_7",
        "val/preservation",
    } <= log.recorded.keys()
    ((name, columns, rows, step),) = log.grids
    assert (name, columns, len(rows), step) == ("reconstructions", ["original", "VAE", "RepTok"], 3, 4)
    assert all(Image.fromarray(np.asarray(pixels)).size == (32, 32) for row in rows for pixels in row)

    stage = TrainTokenizer(
        TrainTokenizerConfig(
            train=TRAIN, encoder=configs.encoder, decoder=configs.decoder, vae=configs.autoencoder
        )
    )
    stats = stage.run(inputs, out)  # what an interrupted attempt finished is published, not trained again
    assert stats["val_loss"] == log.recorded["val/loss"]
    torch.manual_seed(TRAIN.seed)
    fresh, trained = RepTok(configs), load_tokenizer(out.local_path())
    changed = [
        n for n, p in fresh.named_parameters() if not torch.equal(p, dict(trained.named_parameters())[n])
    ]
    assert "encoder.embedding" in changed
    assert all(n.startswith(("encoder.embedding", "projection.", "decoder.")) for n in changed)
    assert [place.name for place in checkpoints(out.scratch / "checkpoints")] == ["step-00000004"]


def test_latents_of_another_vae_are_refused(tmp_path, artifacts, configs, small_dataset):
    from dataclasses import replace

    other = replace(Autoencoder(configs.autoencoder).spec, scale=0.5)
    folder = small_dataset.write_latents(tmp_path / "foreign", other, token_dim=32, latent_size=4)
    settings = {
        "dataset": artifacts["dataset"], "latents": published("latents", folder), "tokenizer": configs,
        "train": TRAIN, "preservation_weight": 0.1, "out": Workspace(str(tmp_path / "out"), "f00d"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="Rerun encode_latents"):
        in_this_process(train_tokenizer, settings)


def test_train_generator_publishes_a_generator_that_samples_at_the_tokens_scale(
    tmp_path, artifacts, tiny_models
):
    out = Workspace(str(tmp_path / "out"), "f00d")
    inputs = {kind: artifacts[kind] for kind in ("dataset", "tokens")}
    sizes = GeneratorConfig(condition="text", text_dim=32, token_dim=32, dim=32, depth=1, heads=2)
    text = TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16)
    config = TrainGeneratorConfig(generator=sizes, text_encoder=text, train=TRAIN)
    log = in_this_process(
        train_generator, {**inputs, "generator": sizes, "text_encoder": text, "train": TRAIN, "out": out}
    )
    assert {"train/loss", "train/grad_norm", "val/loss", "speed/images_per_second"} <= log.recorded.keys()
    TrainGenerator(config).run(inputs, out)
    generator = load_generator(out.local_path())
    assert torch.allclose(generator.stats.mean, torch.full((32,), 0.5))
    tokens = generator.sample(Condition(), num_samples=5, num_steps=2)
    assert tokens.shape == (5, 1, 32) and bool(tokens.isfinite().all())


def test_a_text_generator_without_a_language_model_is_refused(tmp_path, artifacts):
    settings = {
        "dataset": artifacts["dataset"], "tokens": artifacts["tokens"], "text_encoder": None, "train": TRAIN,
        "generator": GeneratorConfig(condition="text", text_dim=32, token_dim=32, dim=32, depth=1, heads=2),
        "out": Workspace(str(tmp_path / "out"), "f00d"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="needs a text encoder"):
        in_this_process(train_generator, settings)


def test_models_that_the_workflow_supplies_are_inputs():
    config = TrainTokenizerConfig(train=TRAIN)
    assert TrainTokenizer(config).inputs == ("dataset", "latents")
    assert TrainTokenizer(config, ("vae", "encoder")).inputs == ("dataset", "latents", "vae", "encoder")
    assert TrainTokenizer(config).resources.cpus == 1
