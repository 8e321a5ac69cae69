import numpy as np
import torch

from reptok.data.batch import GeneratorBatch
from reptok.generator import GeneratorConfig, TokenGenerator
from reptok.training.objectives import GeneratorObjective
from reptok.training.step import StepRandom


def test_a_validation_drops_no_condition_and_a_training_step_does():
    """With a dropout of one, a step hears no label at all, and a validation every one."""
    torch.manual_seed(0)
    config = GeneratorConfig(
        token_dim=8, dim=16, depth=1, heads=2, condition="class", num_classes=3, condition_dropout=1.0
    )
    generator = TokenGenerator(config)
    for parameter in generator.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    objective = GeneratorObjective(generator, generator.reads(config), "uniform")
    tokens = torch.randn(5, 1, 8)

    def loss(labels, t, name):
        batch = GeneratorBatch(tokens, [""] * 5, torch.tensor(labels), np.arange(5))
        return objective(batch, StepRandom(3, 0, 5, slice(0, 5)), t)[name].tolist()

    times = torch.tensor([[0.25], [0.5]]).expand(2, 5)
    assert loss([0] * 5, None, "loss") == loss([1] * 5, None, "loss")
    at_zero, at_one = loss([0] * 5, times, "velocity"), loss([1] * 5, times, "velocity")
    assert all(one != other for one, other in zip(at_zero, at_one, strict=True))
