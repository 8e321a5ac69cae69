"""Validation is what the averaged weights lose at the midpoints, whoever computes which sample."""

import numpy as np
import pytest
import torch

from reptok.training.step import StepRandom
from reptok.training.validation import SEED, validate

SIZES = {"samples": 7, "batch_size": 4}  # a last batch of three


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


@pytest.fixture(params=["tokenizer", "class"])
def training(request, trainings, tiny_models, data):
    return trainings.Training(request.param, tiny_models, data).run(3)


class At(StepRandom):
    """Draws of a training step at a given time, no condition dropped."""

    def times(self, *how):
        return torch.full((self.size,), 5 / 16)

    def coins(self, probability):
        return torch.zeros(self.size, dtype=torch.bool)


def test_it_is_the_training_loss_of_every_sample_at_the_midpoints(training):
    values = validate(training.parallel, training.state.ema, training.data, **SIZES)
    total = 0.0
    with training.parallel.averaged(training.state.ema) as averaged, torch.no_grad():
        for number, samples in enumerate((np.arange(4), np.arange(4, 7))):
            draws = At(SEED, number, len(samples), slice(0, len(samples)))
            losses = averaged(training.data.read(samples, np.zeros(len(samples), bool)), draws)
            total += len(samples) * float(losses.get("velocity", losses["loss"]))
    assert values["val/loss_segment_2"] == pytest.approx(total / 7, rel=1e-6)
    assert values["val/loss"] == pytest.approx(sum(values[f"val/loss_segment_{k}"] for k in range(8)) / 8)


def test_an_image_is_encoded_once_for_all_segments(trainings, tiny_models, data):
    training, calls = trainings.Training("tokenizer", tiny_models, data), []
    training.objective.tokenizer.encoder.register_forward_hook(lambda *a: calls.append(len(a[2])))
    values = validate(training.parallel, training.state.ema, training.data, **SIZES)
    assert calls == [4, 3] and "val/preservation" in values


def test_products_have_the_precision_of_the_training(trainings, tiny_models, data):
    training, seen = trainings.Training("class", tiny_models, data), []
    block = training.objective.generator.network.blocks[0].channel_mlp
    block.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    for precision in ("float32", "bfloat16"):
        validate(training.parallel, training.state.ema, training.data, precision=precision, **SIZES)
    assert seen == [torch.float32] * 16 + [torch.bfloat16] * 16
