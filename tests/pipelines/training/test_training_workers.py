"""The real stages, most of them training in this process, which spares its start."""

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.dag.fingerprint import fingerprint, plain
from pipelines.dag.interruption import interrupt
from pipelines.dag.stage import Artifact, Workspace
from pipelines.stages.train_generator import TrainGenerator, TrainGeneratorConfig
from pipelines.stages.train_tokenizer import TrainTokenizer, TrainTokenizerConfig
from pipelines.training.launch import Stopped
from reptok.autoencoder import Autoencoder
from reptok.configs import (
    AutoencoderConfig,
    DecoderConfig,
    EncoderConfig,
    GeneratorConfig,
    RepTokConfig,
    TextEncoderConfig,
)
from reptok.generator.conditioning import Condition
from reptok.pretrained import load_generator, load_tokenizer, save_tokenizer
from reptok.tokenizer import RepTok
from reptok.training.checkpoint_files import checkpoints
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.launch import in_process

TRAIN = TrainConfig(
    steps=4,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, warmup_steps=2),
    ema_decay=0.5,
    log_every=2,
    eval_every=0,
    launcher="process",
)
TEXT_GENERATOR = GeneratorConfig(condition="text", text_dim=32, token_dim=32, dim=32, depth=1, heads=2)


@pytest.fixture
def no_other_process(monkeypatch):
    monkeypatch.setattr("pipelines.training.launch.own_process", in_process)


class RecordingLog:
    """A stage's log in memory."""

    def __init__(self):
        self.recorded: dict[str, float] = {}
        self.pictures: list[tuple] = []
        self.done = 0.0
        self.first: float | None = None

    def metrics(self, values, step=None):
        self.recorded |= values

    def progress(self, done, total, unit="rows"):
        self.done = done
        self.first = done if self.first is None else self.first

    def picture(self, name, image, step=None):
        self.pictures.append((name, image.size, step))


def workspace(folder: Path) -> tuple[Workspace, RecordingLog]:
    log = RecordingLog()
    return Workspace(str(folder), "f00d", log), log


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
    folders["tokenizer"] = tmp_path / "tokenizer"
    save_tokenizer(RepTok(configs), folders["tokenizer"])
    return {kind: published(kind, folder) for kind, folder in folders.items()}


def tokenizer_config(configs: RepTokConfig) -> TrainTokenizerConfig:
    return TrainTokenizerConfig(
        train=TRAIN,
        encoder=configs.encoder,
        decoder=configs.decoder,
        vae=configs.autoencoder,
        decoder_first_steps=1,
    )


def published(kind: str, folder: Path) -> Artifact:
    Workspace(str(folder)).publish({})
    return Artifact(kind, folder.name, str(folder))


@pytest.mark.usefixtures("no_other_process")
def test_train_tokenizer_publishes_a_tokenizer_that_differs_by_what_was_trained(tmp_path, artifacts, configs):
    out, log = workspace(tmp_path / "out")
    inputs = {kind: artifacts[kind] for kind in ("dataset", "latents")}
    stage = TrainTokenizer(tokenizer_config(configs))
    stats = stage.run(inputs, out)
    assert {
        "train/velocity",
        "train/preservation",
        "val/loss_segment_7",
        "val/preservation",
    } <= log.recorded.keys()
    assert [(name, step) for name, _, step in log.pictures] == [("reconstructions", 4)]
    assert log.done == 4
    assert stats["val_loss"] == log.recorded["val/loss"]
    torch.manual_seed(TRAIN.seed)
    fresh, trained = RepTok(configs), load_tokenizer(out.local_path())
    changed = [
        n for n, p in fresh.named_parameters() if not torch.equal(p, dict(trained.named_parameters())[n])
    ]
    assert "encoder.embedding" in changed
    assert all(n.startswith(("encoder.embedding", "projection.", "decoder.")) for n in changed)
    assert [place.name for place in checkpoints(out.scratch / "checkpoints")] == ["step-00000004"]


@pytest.mark.usefixtures("no_other_process")
def test_a_training_starts_from_a_published_model_and_says_so(tmp_path, artifacts, configs, capsys):
    """With a rate of nearly zero it ends where that model stood, which is nowhere near a fresh start."""
    inputs = {kind: artifacts[kind] for kind in ("dataset", "latents")}
    torch.manual_seed(99)
    model = RepTok(configs)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(torch.randn_like(parameter))
    save_tokenizer(model, tmp_path / "model")
    still = replace(TRAIN, optim=OptimConfig(lr=1e-12, warmup_steps=1))
    config = replace(tokenizer_config(configs), train=still)
    started = replace(config, init=str(tmp_path / "model"))
    out, _ = workspace(tmp_path / "out")
    stats = TrainTokenizer(started).run(inputs, out)
    trained, whole = load_tokenizer(out.local_path()), model.trainable_state_dict()
    assert all(torch.allclose(v, whole[k], atol=1e-5) for k, v in trained.trainable_state_dict().items())
    assert stats["init_parameters_fresh"] == 0
    assert stats["init_parameters_taken"] == sum(value.numel() for value in whole.values())
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "tokenizer from" in line]
    assert said.endswith("fresh: nothing")
    said = json.loads((out.local_path() / "init.json").read_text())
    assert sorted(said["taken"]) == sorted(whole)


def test_the_model_to_start_from_counts_by_its_weights(tmp_path, configs):
    config = tokenizer_config(configs)
    save_tokenizer(RepTok(configs), tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")

    def print_of(name):
        return fingerprint("x", 1, replace(config, init=name), {})

    first = print_of(str(tmp_path / "model"))
    assert first == print_of(str(tmp_path / "copy")) != print_of("")
    torch.manual_seed(5)
    save_tokenizer(RepTok(configs), tmp_path / "copy")
    assert first != print_of(str(tmp_path / "copy"))
    without = plain(config, significant_only=True)
    assert "init" not in without  # artifacts from before it could be named stay what they are


def test_what_an_interrupted_attempt_finished_is_published_and_not_trained_again(
    tmp_path, artifacts, configs
):
    inputs = {kind: artifacts[kind] for kind in ("dataset", "latents")}
    first, _ = workspace(tmp_path / "out")
    stats = TrainTokenizer(tokenizer_config(configs)).run(inputs, first)
    (first.local_path() / "model.safetensors").unlink()
    second, log = workspace(tmp_path / "out")
    assert TrainTokenizer(tokenizer_config(configs)).run(inputs, second) == stats
    assert log.done == 0 and log.recorded["train/loss"] == stats["train_loss"]  # told again, not trained
    load_tokenizer(second.local_path())


@pytest.mark.usefixtures("no_other_process")
def test_latents_of_another_vae_are_refused(tmp_path, artifacts, configs, small_dataset):
    other = replace(Autoencoder(configs.autoencoder).spec, scale=0.5)
    folder = small_dataset.write_latents(tmp_path / "foreign", other, token_dim=32, latent_size=4)
    inputs = {"dataset": artifacts["dataset"], "latents": published("latents", folder)}
    with pytest.raises(ValueError, match="Rerun encode_latents"):
        TrainTokenizer(tokenizer_config(configs)).run(inputs, workspace(tmp_path / "out")[0])


@pytest.mark.usefixtures("no_other_process")
def test_train_generator_publishes_a_generator_that_samples_at_the_tokens_scale(
    tmp_path, artifacts, tiny_models
):
    out, log = workspace(tmp_path / "out")
    inputs = {kind: artifacts[kind] for kind in ("dataset", "tokens", "tokenizer")}
    text = TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16)
    train = replace(TRAIN, eval_every=3)
    config = TrainGeneratorConfig(generator=TEXT_GENERATOR, text_encoder=text, train=train)
    TrainGenerator(config).run(inputs, out)
    assert {
        "train/loss", "train/grad_norm", "train/lr", "val/loss", "speed/images_per_second",
        "data/wait_fraction", "speed/peak_memory_gib",
    } <= log.recorded.keys()  # fmt: skip
    assert any(name.startswith("train/loss_segment_") for name in log.recorded)
    assert [(name, step) for name, _, step in log.pictures] == [("samples", 3)]
    generator = load_generator(out.local_path())
    assert torch.allclose(generator.stats.mean, torch.full((32,), 0.5))
    tokens = generator.sample(Condition(), num_samples=5, num_steps=2)
    assert tokens.shape == (5, 1, 32) and bool(tokens.isfinite().all())


@pytest.mark.usefixtures("no_other_process")
@pytest.mark.parametrize("stage", [TrainTokenizer, TrainGenerator])
def test_a_training_on_an_object_store_is_that_on_disk_and_copies_no_data_set(
    stage, s3, s3_server, artifacts, configs, tiny_models, tmp_path
):
    config = {
        TrainTokenizer: tokenizer_config(configs),
        TrainGenerator: TrainGeneratorConfig(
            generator=TEXT_GENERATOR,
            text_encoder=TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16),
            train=TRAIN,
        ),
    }[stage]
    inputs = {kind: artifacts[kind] for kind in ("dataset", *stage(config).inputs)}
    stores = {}
    for kind, artifact in inputs.items():
        for path in Path(artifact.url).iterdir():
            if path.is_file():
                s3.upload_file(str(path), "reptok", f"runs/{kind}/{artifact.fingerprint}/{path.name}")
        stores[kind] = Artifact(kind, artifact.fingerprint, f"s3://reptok/runs/{kind}/{artifact.fingerprint}")
    if stage is TrainGenerator:  # its tokenizer only draws pictures
        stores["tokenizer"] = inputs["tokenizer"]
    outs = [workspace(tmp_path / place)[0] for place in ("here", "there")]
    stats = [stage(config).run(given, out) for given, out in zip((inputs, stores), outs, strict=True)]
    here, there = ((out.local_path() / "model.safetensors").read_bytes() for out in outs)
    assert here == there and stats[0]["val_loss"] == stats[1]["val_loss"]
    parts = s3_server.ranges
    assert any(name.endswith("/train-00000.tar") for name, _, _ in parts) and len(parts) == len(set(parts))
    assert not (tmp_path / "cache" / "artifacts").exists()


@pytest.mark.usefixtures("no_other_process")
def test_a_text_generator_without_a_language_model_is_refused(tmp_path, artifacts):
    inputs = {kind: artifacts[kind] for kind in ("dataset", "tokens", "tokenizer")}
    stage = TrainGenerator(TrainGeneratorConfig(generator=TEXT_GENERATOR, train=TRAIN))
    with pytest.raises(ValueError, match="needs a text encoder"):
        stage.run(inputs, workspace(tmp_path / "out")[0])


def test_an_interrupted_program_lets_the_training_save_itself_and_the_same_command_goes_on(
    tmp_path, artifacts, configs, tiny_models
):
    inputs = {kind: artifacts[kind] for kind in ("dataset", "tokens", "tokenizer")}
    text = TextEncoderConfig(path=str(tiny_models / "text_encoder"), max_length=16)
    train = replace(TRAIN, steps=100_000, log_every=1)
    config = TrainGeneratorConfig(generator=TEXT_GENERATOR, text_encoder=text, train=train)
    out, log = workspace(tmp_path / "out")
    ended: list[BaseException] = []

    def work():
        try:
            TrainGenerator(config).run(inputs, out)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while log.done < 3:
        time.sleep(0.05)
    assert interrupt(60)
    thread.join()
    assert isinstance(ended[0], Stopped)
    stopped_at = int(checkpoints(out.scratch / "checkpoints")[0].name.rpartition("-")[2])
    assert 3 <= stopped_at == log.done
    again, log = workspace(tmp_path / "out")
    shorter = replace(config, train=replace(train, steps=stopped_at + 2))
    TrainGenerator(shorter).run(inputs, again)
    assert log.first == stopped_at and log.done == stopped_at + 2


def test_models_that_the_workflow_supplies_are_inputs():
    config = TrainTokenizerConfig(train=TRAIN)
    made = replace(config, vae=AutoencoderConfig(path="artifact:vae"))
    assert TrainTokenizer(config).inputs == ("dataset", "latents")
    assert TrainTokenizer(made).inputs == ("dataset", "latents", "vae")
    assert TrainTokenizer(config).resources.cpus == 1
