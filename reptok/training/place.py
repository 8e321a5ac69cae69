"""Where one process of a training stands among the others, however they were started."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from reptok.training.config import PATIENT_SECONDS, TrainConfig


@dataclass(frozen=True)
class Place:
    """This process among those of a training.

    Attributes:
        rank: In [0, world_size).
        world_size: Number of processes.
        device: Where this process computes.
        preempted: Whether a machine of the training is about to be taken away; all processes ask together
            and get the same answer.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    preempted: Callable[[], bool] = lambda: False


def device_of(config: TrainConfig, local_rank: int = 0) -> torch.device:
    """Return the device of the machine's `local_rank`-th process."""
    if not config.gpus_per_worker:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {local_rank} of this machine finds no GPU of its own ({torch.cuda.device_count()} are "
            "visible); start fewer, or set train.gpus_per_worker to 0 for the CPU"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


@contextmanager
def under_torchrun(config: TrainConfig, folder: Path) -> Iterator[Place]:
    """Join the others that `torchrun` has started, until the block ends.

    On one machine they meet in a file of `folder`, and what gloo and NCCL listen on is bound to loopback:
    torch's own store would listen on every address and ask nobody who he is. Among several machines it is
    that store.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = device_of(config, int(os.environ["LOCAL_RANK"]))
    init_method = "env://"
    if int(os.environ["LOCAL_WORLD_SIZE"]) == world_size:
        stay_on_loopback()
        attempt = f"{os.getppid()}-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        init_method = f"file://{folder.resolve()}/rendezvous-{attempt}"
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", init_method=init_method, rank=rank,
        world_size=world_size, timeout=timedelta(seconds=PATIENT_SECONDS),
    )  # fmt: skip
    try:
        yield Place(rank, world_size, device)
    finally:
        dist.destroy_process_group()


def stay_on_loopback() -> None:
    """Bind what gloo and NCCL listen on to loopback, unless the environment says where."""
    for _, name in socket.if_nameindex():
        if name in ("lo", "lo0"):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def raise_file_limit() -> None:
    """Let this process open as many files as it may: of 1,024 NCCL takes several for every other process."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that this process has had: on the GPU if it uses one, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
