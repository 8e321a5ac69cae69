"""The loop: a killed run ends with the weights of an undisturbed one."""

import pytest
import torch
from torch import nn

from examples.zoo.loop import ema_update, train_loop, warmup_cosine
from examples.zoo.recipes import Recipe

RECIPE = Recipe(
    seed=1,
    batch_size=5,
    learning_rate=0.1,
    warmup_steps=2,
    log_every=2,
    checkpoint_seconds=0.0,
)


class Killed(Exception):
    pass


def run(scratch, die_at=None):
    torch.manual_seed(0)
    model, average = nn.Linear(3, 2), nn.Linear(3, 2)
    average.load_state_dict(model.state_dict())
    seen = []

    def step(index, generator):
        if index == die_at:
            raise Killed
        x = torch.randn(RECIPE.batch_size, 3, generator=generator)
        return model(x).square().mean(), {"size": x.abs().mean()}

    train_loop(
        "toy",
        RECIPE,
        {"model": model, "average": average},
        torch.optim.AdamW(model.parameters(), RECIPE.learning_rate),
        step,
        steps=8,
        after_step=lambda index: ema_update(average, model, 0.5),
        scratch=scratch,
        log=lambda values, index: seen.append((index, values)),
    )
    return model, average, seen


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    model, average, seen = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "broken", die_at=5)
    resumed, resumed_average, late = run(tmp_path / "broken")
    assert [index for index, _ in seen] == [2, 4, 6, 8]
    assert [index for index, _ in late] == [6, 8]
    assert late == seen[2:]
    for one, other in ((model, resumed), (average, resumed_average)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert seen[-1][1]["train/loss"] < seen[0][1]["train/loss"]


def test_the_schedule_warms_up_and_ends_at_its_floor():
    assert [warmup_cosine(step, 100, 10) for step in (0, 4, 9)] == [0.1, 0.5, 1.0]
    assert warmup_cosine(10, 100, 10) == 1.0
    assert warmup_cosine(55, 100, 10) == pytest.approx(0.505)
    assert warmup_cosine(100, 100, 10) == pytest.approx(0.01)


def test_the_average_moves_its_share():
    average, model = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(average.weight, 1.0)
    nn.init.constant_(model.weight, 3.0)
    ema_update(average, model, 0.75)
    assert average.weight.item() == 1.5
