"""The same training in a process of its own, under torchrun and under Ray Train."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.stage import Workspace
from pipelines.training.launch import launch
from reptok.configs import GeneratorConfig
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.generator import GeneratorTraining
from reptok.training.run import finished_folder
from tests.fixtures.trainings import write_data

TRAIN = TrainConfig(
    steps=6,
    batch_size=4,
    optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2),
    ema_decay=0.5,
    log_every=2,
    eval_every=0,
)


class Losses:
    """A stage's log that keeps the losses."""

    def __init__(self):
        self.kept: dict[tuple[str, int], float] = {}

    def metrics(self, values, step=None):
        self.kept |= {(name, step): values[name] for name in ("train/loss", "val/loss") if name in values}

    def progress(self, done, total, unit="rows"):
        pass


@pytest.fixture(scope="module")
def training(tmp_path_factory, small_dataset, tiny_models):
    folder = write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)
    return GeneratorTraining(
        train=TRAIN,
        generator=GeneratorConfig(condition="class", num_classes=3, token_dim=32, dim=32, depth=2),
        dataset=folder / "dataset",
        tokens=folder / "tokens",
        tokenizer=folder / "tokenizer",  # of the end no pictures are drawn
    )


def train(training, folder, launcher, workers):
    """Weights and losses by one launcher."""
    log = Losses()
    out = Workspace(str(folder / f"{launcher}-{workers}"), "f00d", log)
    launch(replace(training, train=replace(TRAIN, launcher=launcher, workers=workers)), out)
    return load_file(finished_folder(out.scratch) / "model" / "model.safetensors"), log.kept


def test_a_model_that_another_thread_loads_leaves_the_initial_weights_as_they_are(training, tmp_path):
    from diffusers.models.modeling_utils import no_init_weights

    weights, losses = train(training, tmp_path / "alone", "process", 1)
    with no_init_weights():  # what loading a VAE does, to all threads of its process
        torch.manual_seed(1)
        disturbed, told = train(training, tmp_path / "disturbed", "process", 1)
    assert told == losses and losses["train/loss", 6] != losses["train/loss", 2]
    assert all(torch.equal(disturbed[name], weights[name]) for name in weights)


@pytest.mark.slow
def test_every_launcher_trains_the_same(training, tmp_path):
    cluster.configure(ClusterConfig(num_cpus=2))
    try:
        found = {
            (launcher, workers): train(training, tmp_path, launcher, workers)
            for launcher, workers in [
                ("process", 1),
                ("torchrun", 1),
                ("ray", 1),
                ("torchrun", 2),
                ("ray", 2),
            ]
        }
    finally:
        cluster.shutdown()
    alone, losses = found["process", 1]
    assert len(losses) == 4 and losses["train/loss", 6] != losses["train/loss", 2]
    for launcher in ("torchrun", "ray"):
        weights, told = found[launcher, 1]
        assert told == losses, launcher
        assert all(torch.equal(weights[name], alone[name]) for name in alone), launcher
    two, told = found["torchrun", 2]
    assert told == found["ray", 2][1]
    assert all(torch.equal(two[name], found["ray", 2][0][name]) for name in two)
    assert all(torch.allclose(two[name], alone[name], rtol=1e-5, atol=1e-5) for name in alone)
