"""What a generator's training makes of its data before the first step."""

import numpy as np
import torch

from reptok.configs import GeneratorConfig
from reptok.data.loader import GeneratorData
from reptok.generator.token_stats import FLOOR
from reptok.training.config import TrainConfig
from reptok.training.generator import GeneratorTraining, token_covariance
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
