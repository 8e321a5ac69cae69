"""Start a stage's training by the launcher that its configuration names, and end when asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from pipelines.dag.interruption import saving_when_asked
from pipelines.dag.stage import Workspace
from pipelines.training.log_queue import direct
from pipelines.training.ray_train import ray_train
from pipelines.training.scratch import finished, share_scratch
from reptok.training.failure import check_failure, forget_failure
from reptok.training.launch import own_process, torchrun
from reptok.training.run import STOP, stop_file
from reptok.training.task import Training


class Stopped(SystemExit):
    """The training was asked to end, and left a checkpoint to go on from."""


def launch(training: Training, out: Workspace) -> None:
    """Train, from the newest checkpoint in the workspace's scratch if there is one.

    Interrupting the program lets the training save itself first.

    Args:
        training: What to train; its `train.launcher` says how.
        out: The stage's workspace; checkpoints and the result go to its scratch, on an object store for all
            machines to see.

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
    stop, shared = stop_file(out.scratch), share_scratch(out)
    shared.remove(STOP)
    forget_failure(out.scratch)

    def ask() -> None:
        stop.touch()
        with suppress(OSError):  # whoever trains on this machine sees it all the same
            shared.push(STOP)

    with saving_when_asked(ask):
        launchers[training.train.launcher]()
    check_failure(out.scratch)
    if not finished(out):
        if stop.exists() or shared.sees(STOP):
            raise Stopped("the training has saved itself; the same command goes on")
        raise OSError(
            f"the training ended, and {out.scratch} holds neither its result nor a request to stop: its "
            "first process wrote to a folder that this machine does not see. root= must be a folder that all "
            "machines share, or an object store; the same command then goes on"
        )
