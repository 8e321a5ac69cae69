"""Ray Train with two processes, one of which is killed, on a model that needs no imports."""

import json
import os
import signal
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from pipelines.dag import cluster
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.stage import Workspace
from pipelines.training.ray_train import flight_recorder, ray_train
from pipelines.training.scratch import share_scratch
from reptok.data.stream import Batches
from reptok.training.config import OptimConfig, TrainConfig
from reptok.training.parallel import parallelize
from reptok.training.run import FINISHED, RESULT, finished_folder, stop_file
from reptok.training.shared import Shared
from reptok.training.state import TrainState
from reptok.training.step import StepRandom, TrainStep
from reptok.training.task import Task, Training
from tests.fixtures import regression
from tests.fixtures.regression import NumbersData, Regression, save

CONFIG = TrainConfig(
    steps=7,
    batch_size=4,
    optim=OptimConfig(lr=0.1, warmup_steps=2),
    ema_decay=0.5,
    log_every=2,
    eval_every=0,
    eval_samples=5,
    checkpoint_every_seconds=0.0,
    workers=2,
)


class Mortal(NumbersData):
    """Kills the process of rank 1 at step 4 of the first attempt."""

    def __init__(self, scratch):
        self.scratch = scratch

    def read(self, samples, flipped, columns=None):
        killed = self.scratch / "killed"
        latest = Shared.of(self.scratch).below("checkpoints").names("")
        if dist.get_rank() == 1 and not killed.exists() and latest and latest[-1] >= "step-00000004":
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(samples, flipped, columns)


@dataclass(frozen=True, kw_only=True)
class MortalTraining(Training):
    scratch: Path

    def build(self, device):
        return Task(objective=Regression(), data=Mortal(self.scratch), validation=NumbersData(), save=save)


class RecordingLog:
    def __init__(self):
        self.recorded, self.positions, self.pictures = {}, [], []

    def metrics(self, values, step=None):
        for name, value in values.items():
            self.recorded[name, step] = value

    def progress(self, done, total, unit="rows"):
        self.positions.append((done, total, unit))

    def picture(self, name, image, step=None):
        self.pictures.append((name, image.size, step))


def alone() -> dict[str, torch.Tensor]:
    """The averaged weights of the same training in this process, never interrupted."""
    objective = Regression()
    state = TrainState(objective, CONFIG.optim, CONFIG.ema_decay)
    step = TrainStep(parallelize(objective), state, CONFIG.optim, CONFIG.steps)
    batches = Batches(NumbersData(), CONFIG.batch_size, CONFIG.seed)
    for batch in islice(batches.stream(0), CONFIG.steps):
        step(batch, StepRandom(CONFIG.seed, state.step, CONFIG.batch_size, batches.mine)).read()
        state.step += 1
    return state.ema.weights


@pytest.fixture
def local_ray():
    cluster.configure(ClusterConfig(num_cpus=2))
    cluster.ensure()
    from ray import cloudpickle

    for module in (sys.modules[__name__], regression):  # workers cannot import a test
        cloudpickle.register_pickle_by_value(module)
    yield
    cluster.shutdown()


@pytest.fixture(params=["disk", "store"])
def url(request, tmp_path):
    """Of a workspace on disk or on an object store."""
    if request.param == "store":
        request.getfixturevalue("s3")
    return {"disk": str(tmp_path / "out"), "store": "s3://reptok/runs/out"}[request.param]


@pytest.mark.slow
def test_two_workers_survive_a_death_and_end_where_one_process_ends(url, local_ray):
    log = RecordingLog()
    out = Workspace(url, "f00d", log)
    if share_scratch(out).url:  # of another time, when this machine was asked to stop
        stop_file(out.scratch).touch()
    ray_train(MortalTraining(train=CONFIG, scratch=out.scratch), out)
    share_scratch(out).pull(FINISHED)
    assert (out.scratch / "killed").exists()
    weights = load_file(finished_folder(out.scratch) / "model" / "weights.safetensors")
    for name, value in alone().items():
        assert torch.allclose(weights[name], value, atol=1e-5), name
    assert log.positions[-1] == (7, 7, "steps")
    assert {("train/loss", 2), ("train/loss", 4), ("train/loss", 7), ("val/loss", 7)} <= log.recorded.keys()
    result = json.loads((finished_folder(out.scratch) / RESULT).read_text())
    assert result["val/loss"] == log.recorded["val/loss", 7]


def test_the_flight_recorder_listens_to_the_names_that_torch_reads():
    """Names change between versions: the library itself must know them."""
    with open(f"{torch.__path__[0]}/lib/libtorch_cpu.so", "rb") as file:
        library = file.read()
    for name in flight_recorder(Workspace("/runs/tokenizer", "f00d", None)):
        assert name.encode() in library, name
