"""What a generator's training makes of its data before the first step."""

import numpy as np
import torch

from reptok.configs import GeneratorConfig
from reptok.data.loader import GeneratorData
from reptok.generator.token_stats import FLOOR
from reptok.training.config import TrainConfig
from reptok.training.generator import GeneratorTraining, token_covariance
from reptok.training.scores import spread_runs
from tests.fixtures.trainings import write_data


def test_whitening_is_that_of_the_training_tokens(tmp_path, small_dataset, tiny_models):
    folder = write_data(tmp_path, small_dataset, tiny_models)
    training = GeneratorTraining(
        train=TrainConfig(steps=1, batch_size=4),
        generator=GeneratorConfig(token_dim=32, dim=32, depth=1, whiten=True),
        dataset=folder / "dataset", tokens=folder / "tokens", tokenizer=folder / "tokenizer",
    )  # fmt: skip
    data = GeneratorData(folder / "dataset", folder / "tokens")
    count = sum(data.rows)
    tokens = data.read(np.arange(count), np.zeros(count, bool)).tokens.double()
    covariance = torch.from_numpy(np.cov(tokens[:, 0].numpy(), rowvar=False, bias=True))
    torch.testing.assert_close(token_covariance(data), covariance)
    assert not torch.allclose(token_covariance(data, 5), covariance)

    stats = training.build(torch.device("cpu")).objective.generator.stats
    scaled = covariance / stats.std.double()[:, None] / stats.std
    floor = FLOOR * scaled.trace() / len(scaled)
    root = stats.colouring.double()
    torch.testing.assert_close(root @ root, scaled + floor * torch.eye(32), rtol=1e-3, atol=1e-4)


def test_a_few_runs_stand_for_all_samples():
    runs = spread_runs(10_000, 300, 100)
    assert runs.tolist() == [*range(100), *range(4950, 5050), *range(9900, 10_000)]
    assert len(set(spread_runs(301, 300, 100).tolist())) == 300 and spread_runs(
        300, 300, 100
    ).tolist() == list(range(300))
    assert spread_runs(7, 5, 100).tolist() == [0, 1, 2, 3, 4]
