"""Losses over flow time: the first is next to noise, the last next to data."""

from types import SimpleNamespace

import pytest
import torch

from pipelines.evaluation import reconstructions, samples
from pipelines.evaluation.loss_by_time import loss_by_time
from reptok.generator import GeneratorConfig, TokenGenerator

NUM, SCALE = 400, 3.0
# A network that answers with its input x_t = (1 - t) noise + t data errs by (2 - t) noise - (1 - t) data.
EXACT = [(2 - t) ** 2 + (1 - t) ** 2 * SCALE**2 for t in (0.0625 + 0.125 * k for k in range(8))]


def test_times_ascend_in_eight_equal_segments():
    found = loss_by_time(lambda t: t, torch.zeros(3, 5))
    assert found.tolist() == [3 * (0.0625 + 0.125 * k) for k in range(8)]


def test_the_decoders_losses_stand_at_their_times():
    torch.manual_seed(0)
    latents = SCALE * torch.randn(NUM, 4, 8, 8)
    echo = SimpleNamespace(velocity=lambda x_t, t, token: x_t)
    found = reconstructions._losses(echo, latents, torch.zeros(NUM, 1), range(NUM)) / NUM
    assert found.tolist() == pytest.approx(EXACT, rel=0.03)


def test_the_generators_losses_stand_at_their_times(monkeypatch):
    torch.manual_seed(0)
    config = GeneratorConfig(token_dim=64, dim=16, depth=1, heads=2, condition="none")
    generator = TokenGenerator(config).eval()
    monkeypatch.setattr(generator, "velocity", lambda x_t, t, condition: x_t)
    sampler = SimpleNamespace(generator=generator, condition=lambda examples: None)
    tokens = SCALE * torch.randn(NUM, 64)
    found = samples._losses(sampler, tokens, [], range(NUM)) / NUM
    assert found.tolist() == pytest.approx(EXACT, rel=0.03)
