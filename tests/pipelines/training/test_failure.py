"""What would come again is not tried again, and what may not is, at a rate."""

from dataclasses import dataclass

import pytest
import torch

from pipelines.dag.stage import Workspace
from pipelines.training import ray_train
from pipelines.training.launch import launch
from reptok.training.checkpoint_files import FACTS, folder_name
from reptok.training.config import TrainConfig
from reptok.training.failure import RepeatedFailure, check_failure, failure_file, forget_failure, written_down
from reptok.training.place import Place
from reptok.training.run import run
from reptok.training.step import NonFiniteError
from reptok.training.task import Training


@pytest.mark.parametrize("error", [NonFiniteError("10 steps"), ValueError("sample 7"), KeyError("moments")])
def test_what_would_come_again_is_written_down(error, tmp_path):
    with pytest.raises(type(error)), written_down(tmp_path / "scratch"):
        raise error
    with pytest.raises(RepeatedFailure, match=rf"{type(error).__name__}: .*test_failure.py.*not begun anew"):
        check_failure(tmp_path / "scratch")
    forget_failure(tmp_path / "scratch")
    check_failure(tmp_path / "scratch")


@pytest.mark.parametrize("error", [OSError("stale file handle"), RuntimeError("NCCL"), MemoryError()])
def test_what_a_machine_does_is_not(error, tmp_path):
    with pytest.raises(type(error)), written_down(tmp_path):
        raise error
    assert not failure_file(tmp_path).exists()


@dataclass(frozen=True, kw_only=True)
class Empty(Training):
    """A task whose data must not be asked for."""

    def build(self, device):
        from reptok.training.task import Task

        class Nothing:
            rows = (4,)

            def read(self, samples, flipped, columns=None):
                raise AssertionError("read")

        return Task(objective=torch.nn.Linear(1, 1), data=Nothing(), validation=None, save=lambda *_: None)


def test_no_process_begins_after_such_a_failure(tmp_path):
    with pytest.raises(ValueError), written_down(tmp_path):
        raise ValueError("sample 7")
    training = Empty(train=TrainConfig(steps=1, batch_size=1))
    assert run(training, Place(), tmp_path, None) is False


class Fits:
    """A fit that fails so often, each time after some seconds and some steps."""

    def __init__(self, out, failures):
        self.out, self.failures, self.now, self.step, self.calls = out, list(failures), 0.0, 0, 0

    def __call__(self):
        from ray.train import TrainingFailedError

        self.calls += 1
        if self.failures:
            seconds, steps = self.failures.pop(0)
            self.now += seconds
            self.step += steps
            place = self.out.scratch / "checkpoints" / folder_name(self.step)
            place.mkdir(parents=True, exist_ok=True)
            (place / FACTS).touch()
            raise TrainingFailedError("workers died")

    def clock(self):
        return self.now


@pytest.mark.parametrize(
    ("failures", "calls", "survives"),
    [
        ([(4000, 50)] * 5, 6, True),  # five hours' worth of deaths, one after the other
        ([(3000, 50)], 1, False),  # too many within an hour
        ([(4000, 50), (4000, 0)], 2, False),  # it gets no further
    ],
)
def test_deaths_are_survived_at_a_rate_while_the_training_gets_further(failures, calls, survives, tmp_path):
    from ray.train import TrainingFailedError

    out = Workspace(str(tmp_path / "out"))
    fit = Fits(out, failures)
    if survives:
        ray_train._fit(fit, out, fit.clock)
    else:
        with pytest.raises(TrainingFailedError):
            ray_train._fit(fit, out, fit.clock)
    assert fit.calls == calls


def test_a_training_without_a_result_is_no_request_to_stop(tmp_path, monkeypatch):
    """As when its first process wrote to another machine's disk."""
    monkeypatch.setattr("pipelines.training.launch.ray_train", lambda training, out: None)
    training = Empty(train=TrainConfig(steps=1, batch_size=1, launcher="ray"))
    with pytest.raises(OSError, match="root= must be a folder that all machines share"):
        launch(training, Workspace(str(tmp_path / "out")))
