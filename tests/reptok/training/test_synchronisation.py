"""A step never waits for the device, and a block is one graph.

On the device "meta", which has shapes and no values, whatever would bring a value to the host is an error;
copies between it and the host are counted. The two waits that a step may have are for numbers of the step
before, which are on their way already.
"""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from reptok.training.blocks import blocks, compile_blocks
from reptok.training.parallel import Replicated, parallelize
from reptok.training.state import TrainState
from reptok.training.step import StepRandom, TrainStep

BATCH = 4
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2")


class Traffic(TorchDispatchMode):
    """Notes every copy between host and device, and gives zeros for what comes back."""

    def __init__(self):
        super().__init__()
        self.there: list[bool] = []
        self.back: list[bool] = []  # whether each is non-blocking
        self.waits: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        name = function.overloadpacket.__name__
        on_device = any(isinstance(a, torch.Tensor) and a.is_meta for a in arguments)
        if on_device and name in WAITS:
            self.waits.append(name)
        if name in ("_to_copy", "copy_"):
            source = arguments[1] if name == "copy_" else arguments[0]
            target = arguments[0].device if name == "copy_" else keywords.get("device") or source.device
            calm = bool(keywords.get("non_blocking") or (len(arguments) > 2 and arguments[2]))
            if source.is_meta and torch.device(target).type == "cpu":
                self.back.append(calm)
                return torch.zeros(source.shape, dtype=keywords.get("dtype") or source.dtype)
            if not source.is_meta and torch.device(target).type == "meta":
                self.there.append(calm)
        return function(*arguments, **keywords)


class Shapes(StepRandom):
    """Random numbers that are shapes alone: there is no generator on "meta"."""

    def __init__(self):
        self.device, self.batch_size, self.step = torch.device("meta"), BATCH, 0
        self._mine = slice(0, BATCH)

    def part(self, rows):
        part = Shapes()
        part._mine = rows
        return part

    def normal(self, *shape):
        return torch.empty(self.size, *shape, device="meta")

    def times(self, sampling, loc=0.0, scale=1.0):
        return torch.empty(self.size, device="meta")

    def coins(self, probability):
        return torch.empty(self.size, device="meta", dtype=torch.bool)


@pytest.fixture(scope="module")
def data(tmp_path_factory, trainings, small_dataset, tiny_models):
    return trainings.write_data(tmp_path_factory.mktemp("data"), small_dataset, tiny_models)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["tokenizer", "decoder_first", "class"])
def test_a_step_waits_for_nothing(kind, accumulate, trainings, tiny_models, data):
    training = trainings.Training(kind, tiny_models, data)
    batch = training.batches.read(0)
    objective = trainings.objective_of(kind, tiny_models).to("meta").train()
    state = TrainState(objective, trainings.CONFIG.optim, 0.9)
    optim = replace(trainings.CONFIG.optim, grad_clip=1.0)
    step = TrainStep(parallelize(objective), state, optim, 10, device="meta", accumulate=accumulate)
    with Traffic() as traffic:
        for _ in range(3):
            begun = step(batch, Shapes(), {"save": 0.0})
            state.step += 1
    assert traffic.waits == []
    assert traffic.back == [True] * 3, "one copy back for each step, and it is not waited for"
    assert traffic.there and all(traffic.there)
    assert begun.read()["save"] == 0.0


def test_the_counter_counts(trainings):
    with Traffic() as traffic:
        torch.zeros(2).to("meta")
        torch.zeros(2, device="meta").to("cpu", non_blocking=True)
        torch.zeros(2, device="meta").cpu()
        for wrong in (lambda x: x.sum().item(), lambda x: bool(x.any()), lambda x: x.nonzero()):
            with pytest.raises((RuntimeError, NotImplementedError)):
                wrong(torch.zeros(2, device="meta"))
    assert (traffic.there, traffic.back) == ([False], [True, False])
    assert traffic.waits == ["_local_scalar_dense", "_local_scalar_dense", "nonzero"]


@pytest.fixture
def alone_in_a_group(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("kind", ["tokenizer", "text", "class"])
def test_a_block_is_one_graph_under_ddp(kind, trainings, tiny_models, data, alone_in_a_group):
    """Buckets that are smaller than a block would cut it in pieces; blocks of a stack share their graph."""
    counter = CompileCounter()
    training = trainings.Training(kind, tiny_models, data)
    compile_blocks(training.objective, counter)
    training.parallel = Replicated(training.objective, torch.device("cpu"))
    training.parallel.module.bucket_bytes_cap = 256
    optim = trainings.CONFIG.optim
    training.step = TrainStep(training.parallel, training.state, optim, trainings.STEPS)
    training.run(2)
    stacks = {"tokenizer": 2, "text": 1, "class": 1}[kind]  # the decoder's blocks and the mapping's
    assert counter.frame_count == stacks
    calls = counter.op_count
    training.run(4)
    assert (counter.frame_count, counter.op_count) == (stacks, calls)


def test_only_what_gradients_pass_through_is_compiled(trainings, tiny_models):
    def names(trainable):
        objective = trainings.objective_of("tokenizer", tiny_models, trainable)
        known = {module: name for name, module in objective.named_modules()}
        return {known[block].split(".")[1] for block in blocks(objective)}

    assert names("cls") == names("everything") == {"encoder", "decoder"}
    assert names("nothing") == {"decoder"}


@pytest.mark.parametrize("kind", ["tokenizer", "text"])
def test_validation_previews_and_short_batches_compile_nothing(kind, trainings, tiny_models, data):
    counter = CompileCounter()
    training = trainings.Training(kind, tiny_models, data, compile=True, backend=counter)
    training.run(2)
    graphs = counter.frame_count

    def evaluate(step):
        with training.parallel.averaged(training.state.ema) as averaged:
            for size in (BATCH, 3, 1):
                batch = training.batches.read(0).part(slice(0, size))
                draws = StepRandom(9, 0, size, slice(0, size))
                averaged(batch, draws, torch.full((8, size), 0.5))
            if kind == "tokenizer":
                averaged.tokenizer.reconstruct(torch.zeros(2, 3, 32, 32), num_steps=2)
        return {}

    training.run(trainings.STEPS, evaluate=evaluate)
    assert counter.frame_count == graphs > 0
