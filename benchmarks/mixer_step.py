"""The mixer's training step against the same with its token perceptron as a layer on the transposed input."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.compare import Comparison, compare
from reptok.bench.trainings import Settings, Training, generator_training
from reptok.configs import GeneratorConfig
from reptok.flops import mixer_config
from reptok.generator.mixer import TokenMLP

BATCH, PAIRS = 64, 5
TOLERANCE = 1e-5
CONFIG = replace(mixer_config(3), depth=7)  # a quarter of the paper's: all of it does not fit twice


class TransposedMLP(nn.Module):
    """What every MLP-Mixer does; for a few tokens its products are thin."""

    def __init__(self, mlp: TokenMLP) -> None:
        super().__init__()
        self.up, self.act, self.down = mlp.up, mlp.act, mlp.down

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x.transpose(1, 2)))).transpose(1, 2)


def run(config: GeneratorConfig = CONFIG, batch: int = BATCH) -> Comparison:
    """Forward, backward, clipping, AdamW and average, at the width of the paper's table 3."""
    ours, theirs = _training(config, batch), _training(config, batch)
    assert ours.objective is not None and theirs.objective is not None
    for block in theirs.objective.generator.network.blocks:
        block.token_mlp = TransposedMLP(block.token_mlp)
    ours.step(ours.batch)
    theirs.step(theirs.batch)
    mine, other = (_gradient_moments(training) for training in (ours, theirs))
    error = float((mine - other).norm() / other.norm())
    if error > TOLERANCE:
        raise RuntimeError(f"the gradients differ by {error:.1e}")
    return compare(
        f"mixer step, depth {config.depth}, batch {batch}",
        lambda: ours.step(ours.batch),
        "the same, tokens mixed on the transposed input",
        lambda: theirs.step(theirs.batch),
        f"first moments after a step, relative error {error:.0e}",
        PAIRS,
    )


def _training(config: GeneratorConfig, batch: int) -> Training:
    torch.manual_seed(0)
    return generator_training(config, Settings(device=torch.device("cpu"), batch_size=batch))


def _gradient_moments(training: Training) -> Tensor:
    assert training.state is not None
    moments = training.state.optimizer.tensors()
    return torch.cat([value.flatten() for name, value in moments.items() if name.startswith("exp_avg/")])
