"""A recorded step trains as the plain one, and nothing of it would keep a GPU from recording it.

There is no GPU here: "recording" keeps the work, and "replaying" does it again on the tensors that stay where
they are, as a graph does.
"""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from reptok.training.capture import WARM_STEPS, CapturedStep
from reptok.training.config import TrainConfig
from reptok.training.parallel import parallelize
from reptok.training.state import TrainState
from reptok.training.step import StepRandom

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


def captured(training, capture=lambda work: work):
    config = training.config
    training.step = CapturedStep(
        training.parallel, training.state, config.optim, config.steps, accumulate=config.accumulate,
        capture=capture,
    )  # fmt: skip
    read = training.batches.stream
    training.stream = lambda position: (training.objective.prepared(batch, CPU) for batch in read(position))
    return training


@pytest.mark.parametrize(("kind", "accumulate"), [("class", 1), ("class", 2), ("tokenizer", 1)])
def test_a_replayed_training_is_the_plain_one(kind, accumulate, trainings, tiny_models, data):
    config = replace(trainings.CONFIG, accumulate=accumulate)
    plain = trainings.Training(kind, tiny_models, data, config).run(8)
    recorded = []

    def record(work):
        recorded.append(work)
        return work

    replayed = captured(trainings.Training(kind, tiny_models, data, config), record).run(8)
    assert len(recorded) == 1 and WARM_STEPS < 8
    for name, value in plain.state.tensors().items():
        assert torch.allclose(replayed.state.tensors()[name], value, rtol=1e-4, atol=1e-5), name
    assert replayed.state.history == [
        {"step": point["step"], "train/loss": pytest.approx(point["train/loss"], rel=1e-4)}
        for point in plain.state.history
    ]


def test_every_shape_is_recorded_once(trainings, tiny_models, data):
    recorded = []
    training = captured(
        trainings.Training("class", tiny_models, data), lambda work: recorded.append(work) or work
    )
    batch = training.objective.prepared(training.batches.read(0), CPU)
    for size in (4, 3, 4, 3, 4, 3, 4, 3, 4):
        draws = StepRandom(0, training.state.step, size, slice(0, size))
        training.step(batch.part(slice(0, size)), draws, {"save": 1.0}).read()
        training.state.step += 1
    assert len(recorded) == 2


def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_average(trainings, tiny_models, data):
    training = captured(trainings.Training("class", tiny_models, data)).run(WARM_STEPS + 2)
    before = {name: tensor.clone() for name, tensor in training.state.tensors().items()}
    batch = training.objective.prepared(training.batches.read(0), CPU)
    batch.tokens[1, 0, 3] = float("nan")
    found = training.step(
        batch, StepRandom(0, 9, 4, slice(0, 4)), {"save": 0.0, "stop": 0.0, "wait_of_rank_0": 0.0}
    )
    assert found.read()["skipped"] == 1.0
    after = training.state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


class OnDevice(TorchDispatchMode):
    """Refuses what a graph cannot hold: the host's tensors, values that it reads, and random numbers."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        flat = torch.utils._pytree.tree_leaves((arguments, keywords or {}))
        tensors = [value for value in flat if isinstance(value, torch.Tensor)]
        assert all(tensor.is_meta for tensor in tensors), f"{name} touches the host"
        assert torch.Tag.nondeterministic_seeded not in function.tags, f"{name} draws random numbers"
        assert "_local_scalar_dense" not in name and "nonzero" not in name, f"{name} waits"
        return function(*arguments, **(keywords or {}))


class NoUpdate(TorchDispatchMode):
    """Leaves out the update, whose kernel knows no "meta"; its operands have been looked at before."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if "_fused_adamw_" in str(function):
            return None
        return function(*arguments, **(keywords or {}))


class Shapes(StepRandom):
    """Random numbers that are shapes alone: there is no generator on "meta"."""

    def __init__(self):
        self.device, self.batch_size, self.step = torch.device("meta"), 4, 0
        self._mine = slice(0, 4)

    def normal(self, *shape):
        return torch.empty(4, *shape, device="meta")

    def times(self, sampling, loc=0.0, scale=1.0):
        return torch.empty(4, device="meta")

    def coins(self, probability):
        return torch.empty(4, device="meta", dtype=torch.bool)


@pytest.mark.parametrize("kind", ["class", "text", "tokenizer"])
def test_what_is_recorded_stays_on_the_device(kind, trainings, tiny_models, data):
    training = trainings.Training(kind, tiny_models, data)
    batch = training.objective.prepared(training.batches.read(0), CPU).to("meta")
    objective = trainings.objective_of(kind, tiny_models).to("meta").train()
    held = []

    def record(work):
        with OnDevice():
            work()
        held.append(work)
        return lambda: None

    state = TrainState(objective, trainings.CONFIG.optim, 0.9)
    step = CapturedStep(
        parallelize(objective), state, trainings.CONFIG.optim, 10, device="meta", capture=record
    )
    step._sent = lambda numbers: torch.empty(len(numbers), device="meta")
    with NoUpdate():
        for _ in range(WARM_STEPS + 2):
            step._queue(batch, Shapes(), {"save": 0.0})
            state.step += 1
    assert len(held) == 1


def test_it_is_refused_where_it_cannot_be(trainings, tiny_models, data):
    training = trainings.Training("class", tiny_models, data)
    with pytest.raises(ValueError, match="needs a GPU"):
        CapturedStep(training.parallel, training.state, training.config.optim, 8)
    with pytest.raises(ValueError, match=r"train\.workers is 2"):
        TrainConfig(steps=1, batch_size=2, workers=2, cuda_graphs=True)
