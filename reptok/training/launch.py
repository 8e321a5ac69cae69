"""Start a training: in this process, in one of its own, or in several of this machine under `torchrun`.

All run `run.run`; another launcher, Ray Train's for clusters, is `pipelines.training.ray_train`. By hand:

    python -m reptok.training FOLDER                 in one process
    python -m reptok.training FOLDER --processes 2   in two of this machine
    torchrun --nnodes 2 --nproc-per-node 8 ... -m reptok.training FOLDER      on several machines

where FOLDER holds the training's description, `training.json` (`write_description`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from reptok.training.failure import check_failure, forget_failure, written_down
from reptok.training.generator import GeneratorTraining
from reptok.training.log import Follower, TrainLog
from reptok.training.place import Place, device_of, under_torchrun
from reptok.training.run import run, stop_file
from reptok.training.task import Training
from reptok.training.tokenizer import TokenizerTraining
from reptok.values import from_values

DESCRIPTION = "training.json"
KINDS: Mapping[str, type[Training]] = {"tokenizer": TokenizerTraining, "generator": GeneratorTraining}
MAX_RESTARTS = 3
POLL_SECONDS = 0.5


class LaunchError(RuntimeError):
    """The processes of a training ended without a result, and were not asked to."""


def in_process(training: Training, folder: Path, log: TrainLog) -> bool:
    """Train in this process; see :func:`run`.

    Args:
        training: What to train.
        folder: Where checkpoints and the result go.
        log: Takes what it tells.

    Returns:
        Whether it is finished; False after a stop.
    """
    return run(training, Place(device=device_of(training.train)), folder, log)


def own_process(training: Training, folder: Path, log: TrainLog) -> None:
    """Train in a process of its own, without Ray, and wait for it; it ends with this one.

    Initial weights depend on what a whole process shares: torch's random numbers, and its initialisers,
    which libraries switch off in all threads while they load a model.

    Args:
        training: What to train.
        folder: Where its description, checkpoints and the result go.
        log: Takes what it tells.

    Raises:
        LaunchError: The process died; what it wrote is above.
        RepeatedFailure: It failed in a way that would come again.
    """
    _beside([sys.executable, "-P", "-m", "reptok.training", str(folder)], training, folder, log)


def torchrun(training: Training, folder: Path, log: TrainLog) -> None:
    """Train in `training.train.workers` processes of this machine, and wait for them.

    When one dies, all begin again at the newest checkpoint, `MAX_RESTARTS` times. They end with this process.

    Args:
        training: What to train.
        folder: Where its description, checkpoints and the result go.
        log: Takes what it tells.

    Raises:
        LaunchError: It failed more often; what the processes wrote is above.
        RepeatedFailure: It failed in a way that would come again.
    """
    _beside(torchrun_command(folder, training.train.workers), training, folder, log)


def _beside(command: Sequence[str], training: Training, folder: Path, log: TrainLog) -> None:
    """Run what trains the description in `folder`, and pass on what it tells."""
    write_description(training, folder)
    stop_file(folder).unlink(missing_ok=True)
    forget_failure(folder)
    follower = Follower(folder, log)
    with subprocess.Popen(
        [*command, "--attached"],
        env=child_environment(),
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which asks them to save themselves
    ) as child:
        while True:
            follower.read()
            try:
                status = child.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                pass
    follower.read()
    check_failure(folder)
    if status:
        raise LaunchError(f"the training ended with status {status}; its own words stand above")


def torchrun_command(folder: Path, processes: int) -> list[str]:
    """Return what trains the description in `folder` in some processes of this machine.

    The agent that starts them meets itself in a file.
    """
    meeting = folder.resolve() / f"agents-{os.getpid()}"
    return [
        sys.executable, "-P", "-m", "torch.distributed.run", "--nproc-per-node", str(processes),
        "--max-restarts", str(MAX_RESTARTS), "--rdzv-backend", "c10d", "--rdzv-conf", "store_type=file",
        "--rdzv-endpoint", str(meeting), "-m", "reptok.training", str(folder),
    ]  # fmt: skip


def child_environment() -> dict[str, str]:
    """Return the environment of a training beside this process.

    Modules are found where this process finds them, the working folder last.
    """
    here = os.path.realpath(os.curdir)
    path = sorted((entry or here for entry in sys.path), key=lambda entry: os.path.realpath(entry) == here)
    return {
        "OMP_NUM_THREADS": "1",  # each sets its own number of threads
        **os.environ,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # it would listen on every address
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONSAFEPATH": "1",
    }


def join(training: Training, folder: Path, log: TrainLog) -> bool:
    """Train as one of those whom `torchrun` started, or alone where it did not; see :func:`run`."""
    started = "WORLD_SIZE" in os.environ and "LOCAL_RANK" in os.environ
    placed: AbstractContextManager[Place] = (
        under_torchrun(training.train, folder)
        if started
        else nullcontext(Place(device=device_of(training.train)))
    )
    with placed as place, written_down(folder):
        return run(training, place, folder, log)


def write_description(training: Training, folder: Path) -> Path:
    """Write `training.json`; folders in it are those of this machine, or URLs.

    Returns:
        The file.
    """
    (kind,) = (name for name, known in KINDS.items() if type(training) is known)
    folders = {
        field.name: Path(value).resolve()
        for field in fields(training)
        if isinstance(value := getattr(training, field.name), os.PathLike)
    }
    values = asdict(replace(training, **folders))  # type: ignore[arg-type]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DESCRIPTION
    path.write_text(json.dumps({"kind": kind, **values}, indent=2, default=str) + "\n")
    return path


def read_description(folder: Path) -> Training:
    """Read `training.json`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no description; names the key.
    """
    path = folder / DESCRIPTION
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no {DESCRIPTION}: write one with reptok.training.launch.write_description, or "
            "let a workflow with train.tokenizer.launcher=torchrun write it"
        ) from None
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"{path}: kind must be one of {', '.join(KINDS)}, not {kind!r}")
    return from_values(KINDS[kind], values, path)


def stopped(folder: Path) -> bool:
    """Whether the training was asked to save itself and leave."""
    return stop_file(folder).exists()
