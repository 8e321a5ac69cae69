"""Weights that stay with a model: those that a shorter training ends with, whatever interrupted this one."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from reptok.configs import GeneratorConfig
from reptok.kept import Kept, kept
from reptok.pretrained import load_tokenizer
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.generator import GeneratorTraining
from reptok.training.launch import in_process
from reptok.training.log import FolderLog
from reptok.training.run import finished_folder
from reptok.training.tokenizer import TokenizerTraining
from tests.fixtures.trainings import tokenizer, write_data

TRAIN = TrainConfig(
    steps=5, batch_size=4, optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2), ema_decay=0.5,
    log_every=10, eval_every=0, keep_every=2, launcher="process",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory, small_dataset, tiny_models):
    return write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


@pytest.fixture(scope="module")
def training(data, tiny_models):
    return TokenizerTraining(
        train=TRAIN, tokenizer=tokenizer(tiny_models).config, dataset=data / "dataset",
        latents=data / "latents",
    )  # fmt: skip


def trained(training, folder, **settings):
    """The folder of the model that a training ends with; it goes on with what `folder` holds."""
    shutil.rmtree(finished_folder(folder), ignore_errors=True)
    told = replace(training, train=replace(training.train, **settings))
    assert in_process(told, folder, FolderLog(folder / "told"))
    return finished_folder(folder) / "model"


@pytest.fixture(scope="module")
def model(training, tmp_path_factory):
    return trained(training, tmp_path_factory.mktemp("whole"))


def test_a_kept_step_is_the_end_of_a_training_of_so_many_steps(training, model, tmp_path):
    assert kept(model) == Kept((2, 4), 5)
    shorter = trained(training, tmp_path, steps=4, keep_every=0)
    ours = load_file(model / "checkpoints" / "step-00000004.safetensors")
    theirs, end = (load_file(folder / "model.safetensors") for folder in (shorter, model))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert any(not torch.equal(ours[name], end[name]) for name in ours)
    assert not (shorter / "checkpoints").exists()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        made = [
            found.reconstruct(image, num_steps=2, seed=0)
            for found in (load_tokenizer(model, 4), load_tokenizer(shorter), load_tokenizer(model))
        ]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_a_training_that_went_on_has_the_steps_from_before_and_after(training, model, tmp_path):
    trained(training, tmp_path, steps=3)
    resumed = trained(training, tmp_path)
    names = sorted(path.name for path in (model / "checkpoints").iterdir())
    assert names == ["index.json", "step-00000002.safetensors", "step-00000004.safetensors"]
    for name in names:
        assert (resumed / "checkpoints" / name).read_bytes() == (model / "checkpoints" / name).read_bytes()


def test_a_generators_are_kept_likewise(data, tmp_path):
    config = GeneratorConfig(token_dim=32, dim=32, depth=1, heads=2, condition="class", num_classes=3)
    training = GeneratorTraining(
        train=replace(TRAIN, steps=3), generator=config, dataset=data / "dataset", tokens=data / "tokens",
        tokenizer=str(tmp_path / "none"),
    )  # fmt: skip
    model = trained(training, tmp_path / "g")
    assert kept(model) == Kept((2,), 3)
    own = load_file(model / "model.safetensors")
    assert load_file(model / "checkpoints" / "step-00000002.safetensors").keys() == own.keys()


def test_what_was_not_kept_is_said_with_what_to_do(training, model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.generator\.keep_every=N"):
        kept(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"weights are missing: .*step-00000003"):
        load_tokenizer(model, 3)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "index.json").write_text(json.dumps({"kept": [1, "2"], "end": 3}))
    with pytest.raises(ValueError, match="kept must be a list of steps"):
        kept(tmp_path)
