"""Start a stage's training by the launcher that its configuration names, and end when asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipelines.dag.interruption import saving_when_asked
from pipelines.dag.stage import Workspace
from pipelines.training.log_queue import direct
from pipelines.training.ray_train import ray_train
from reptok.training.failure import check_failure, forget_failure
from reptok.training.launch import own_process, torchrun
from reptok.training.run import RESULT, finished_folder, stop_file
from reptok.training.task import Training


class Stopped(SystemExit):
    """The training was asked to end, and left a checkpoint to go on from."""


def launch(training: Training, out: Workspace) -> None:
    """Train, from the newest checkpoint in the workspace's scratch if there is one.

    Interrupting the program lets the training save itself first.

    Args:
        training: What to train; its `train.launcher` says how.
        out: The stage's workspace; checkpoints and the result go to its scratch.

    Raises:
        Stopped: The program is being interrupted.
        RepeatedFailure: It failed in a way that would come again.
        OSError: There is no result where it should be.
    """
    launchers: Mapping[str, Callable[[], object]] = {
        "process": lambda: own_process(training, out.scratch, direct(out.log)),
        "torchrun": lambda: torchrun(training, out.scratch, direct(out.log)),
        "ray": lambda: ray_train(training, out),
    }
    stop = stop_file(out.scratch)
    stop.unlink(missing_ok=True)
    forget_failure(out.scratch)
    with saving_when_asked(stop.touch):
        launchers[training.train.launcher]()
    check_failure(out.scratch)
    if not (finished_folder(out.scratch) / RESULT).exists():
        if stop.exists():
            raise Stopped("the training has saved itself; the same command goes on")
        raise OSError(
            f"the training ended, and {out.scratch} holds neither its result nor a request to stop: its "
            "first process wrote to a folder that this machine does not see. root= must be a folder that all "
            "machines share; the same command then goes on"
        )
