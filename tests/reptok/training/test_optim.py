import math

import pytest
import torch
from torch import nn

from reptok.training.optim import OptimConfig, build_optimizer, clip_gradients, lr_factor, set_lr


def test_warm_up_is_linear_and_then_constant():
    config = OptimConfig(warmup_steps=4)
    assert [lr_factor(step, 100, config) for step in (0, 1, 2, 3, 4, 99)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_follows_its_closed_form():
    config = OptimConfig(warmup_steps=10, schedule="cosine", final_lr=0.1)
    assert lr_factor(10, 110, config) == 1.0
    assert lr_factor(60, 110, config) == pytest.approx(0.55)
    assert lr_factor(85, 110, config) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.75)))
    assert lr_factor(110, 110, config) == pytest.approx(0.1)


def test_only_matrices_decay_and_the_embedding_has_its_own_rate():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.norm = nn.LayerNorm(2)
            self.encoder = nn.Module()
            self.encoder.embedding = nn.Parameter(torch.zeros(1, 3))

    model = Model()
    config = OptimConfig(lr=0.1, weight_decay=0.5, cls_lr_scale=10.0)
    optimizer = build_optimizer(model.named_parameters(), config)
    found = {id(p): (g["weight_decay"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    assert found[id(model.linear.weight)] == (0.5, 0.1)
    assert found[id(model.linear.bias)] == found[id(model.norm.weight)] == (0.0, 0.1)
    assert found[id(model.encoder.embedding)] == (0.0, 1.0)
    set_lr(optimizer, 0.5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.05, 0.5]


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="nothing to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False).named_parameters(), OptimConfig())


def test_clipping_scales_to_the_norm_and_reports_the_one_before():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    assert float(clip_gradients([weight], 0.0)) == 5.0
    assert weight.grad.tolist() == [3.0, 4.0]
    clip_gradients([weight], 1.0)
    assert torch.allclose(weight.grad, torch.tensor([0.6, 0.8]), atol=1e-5)
