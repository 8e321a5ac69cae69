"""Scores on the way: of the averaged weights, on samples that are named, and nothing else changes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from reptok.configs import GeneratorConfig
from reptok.data.loader import GeneratorData, TokenizerData
from reptok.metrics.reconstruction import psnr
from reptok.pretrained import load_tokenizer
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.generator import GeneratorTraining, likeness
from reptok.training.launch import in_process
from reptok.training.log import FolderLog
from reptok.training.parallel import Alone
from reptok.training.run import RESULT, finished_folder
from reptok.training.scores import Scores, score_together, spread
from reptok.training.tokenizer import TokenizerTraining
from tests.fixtures.trainings import tokenizer, write_data

TRAIN = TrainConfig(
    steps=4, batch_size=4, optim=OptimConfig(lr=1e-2, eps=1e-2, warmup_steps=2), ema_decay=0.5,
    log_every=2, eval_every=2, score_samples=2, launcher="process",
)  # fmt: skip


class Process(Alone):
    """One of several, whose exchange with the others is a function."""

    def __init__(self, rank, world_size, exchange):
        super().__init__(torch.nn.Identity())
        self.rank, self.world_size, self.exchange = rank, world_size, exchange

    def gathered(self, values):
        return self.exchange(values)


@pytest.fixture(scope="module")
def data(tmp_path_factory, small_dataset, tiny_models):
    return write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


@pytest.mark.parametrize(("processes", "samples", "batch"), [(1, 5, 2), (2, 5, 2), (3, 7, 5), (4, 2, 1)])
def test_every_sample_is_judged_whatever_the_processes_and_batches(processes, samples, batch):
    seen = {}

    def look(_, chosen):
        assert len(chosen) <= batch
        return torch.tensor(chosen, dtype=torch.float32)[:, None] ** 2

    scores = Scores(samples=3 * np.arange(samples), look=look, total=lambda v: {"all": v[:, 0].tolist()})
    for rank in range(processes):

        def keep(values, rank=rank):
            seen[rank] = values
            return values

        score_together(scores, None, Process(rank, processes, keep), batch)
    parts = {len(part) for part in seen.values()}
    assert len(parts) == 1, "all processes do as much"
    together = Process(0, processes, lambda _: torch.cat(list(seen.values())))
    found = score_together(scores, None, together, batch)
    assert found == {"all": [float(9 * i * i) for i in range(samples)]}


def test_samples_are_spread_over_the_split():
    assert spread(9, 3).tolist() == [0, 4, 8] and spread(3, 50).tolist() == [0, 1, 2]


def test_the_tokenizers_is_the_psnr_of_what_is_published_and_changes_no_weight(data, tiny_models, tmp_path):
    training = TokenizerTraining(
        train=TRAIN, tokenizer=tokenizer(tiny_models).config, dataset=data / "dataset",
        latents=data / "latents",
    )  # fmt: skip
    log = FolderLog(tmp_path / "log")
    assert in_process(training, tmp_path / "with", log)
    without = replace(training, train=replace(TRAIN, score_samples=0))
    assert in_process(without, tmp_path / "without", FolderLog(tmp_path / "log2"))
    ours, theirs = (
        load_file(finished_folder(tmp_path / name) / "model" / "model.safetensors")
        for name in ("with", "without")
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    result = json.loads((finished_folder(tmp_path / "with") / RESULT).read_text())
    assert not any(
        key.startswith("online/")
        for key in json.loads((finished_folder(tmp_path / "without") / RESULT).read_text())
    )
    model = load_tokenizer(finished_folder(tmp_path / "with") / "model").eval()
    split = TokenizerData(data / "dataset", data / "latents", "val")
    images = split.read(np.array([0, 2]), np.zeros(2, bool)).images.permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        alone = [psnr(model.reconstruct(images[i : i + 1], num_steps=20, seed=2 * i), images[i : i + 1])
                 for i in range(2)]  # fmt: skip
    assert result["online/psnr_ema_n2"] == pytest.approx(torch.cat(alone).mean().item(), abs=1e-3)


def test_the_generators_is_zero_for_the_real_tokens_and_the_distance_of_others(data, tiny_models):
    split = GeneratorData(data / "dataset", data / "tokens", "val")
    real = split.read(np.arange(3), np.zeros(3, bool)).tokens
    given = {"shift": 0.0}

    class Known(torch.nn.Linear):
        def sample(self, condition, *, seeds, **_):
            return real[seeds] + given["shift"]

    conditioner = SimpleNamespace(of=lambda captions, labels: torch.zeros(len(labels)))
    objective = SimpleNamespace(generator=Known(1, 1), conditioner=conditioner)
    alone = Alone(torch.nn.Identity())
    for shift, distance in ((0.0, 0.0), (0.5, 0.25 * 32)):  # means apart by 0.5 in each of 32 dimensions
        given["shift"] = shift
        found = score_together(likeness(split, 10), objective, alone, 2)
        assert found == {"online/token_frechet_ema_n3": pytest.approx(distance, abs=1e-4)}


def test_a_training_of_a_generator_tells_it(data, tmp_path):
    config = GeneratorConfig(token_dim=32, dim=32, depth=1, heads=2, condition="class", num_classes=3)
    training = GeneratorTraining(
        train=replace(TRAIN, score_samples=3), generator=config, dataset=data / "dataset",
        tokens=data / "tokens", tokenizer=str(tmp_path / "none"),
    )  # fmt: skip
    task = training.build(torch.device("cpu"))
    figures = score_together(task.scores(3), task.objective.eval(), Alone(task.objective), 3)
    assert set(figures) == {"online/token_frechet_ema_n3"} and figures["online/token_frechet_ema_n3"] > 1
