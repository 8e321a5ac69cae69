"""The decoder's step in several processes, each with as large a batch as one alone: what is lost?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from reptok.bench.clock import Timing, time_steps
from reptok.bench.result import Result
from reptok.bench.sizes import Bench
from reptok.bench.trainings import tokenizer_training
from reptok.training.config import Strategy

STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp")
TIMEOUT = timedelta(minutes=2)


def scaling(bench: Bench) -> Iterator[Result]:
    """DDP and FSDP on all GPUs of the machine; on the CPU in two processes."""
    devices = torch.cuda.device_count() if bench.device.type == "cuda" else 2
    if devices < 2:
        yield Result(name="DDP", what="several GPUs", note="this machine has one")
        return
    alone = _timed(bench, 1, "ddp")
    for strategy in STRATEGIES:
        timing = _timed(bench, devices, strategy)
        row = Result.of(
            strategy.upper(), f"decoder step on {devices} devices", bench.sizes.batch, timing,
            note=f"{alone.seconds / timing.seconds:.1%} of {devices} times one",
        )  # fmt: skip
        yield replace(row, per_second=row.per_second * devices)


def _timed(bench: Bench, processes: int, strategy: Strategy) -> Timing:
    """The step of the slowest of some processes."""
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_member, (processes, strategy, bench, folder), nprocs=processes)
        found = [Timing(**json.loads(path.read_text())) for path in Path(folder).glob("*.json")]
    return max(found, key=lambda timing: timing.seconds)


def _member(rank: int, processes: int, strategy: Strategy, bench: Bench, folder: str) -> None:
    on_gpu = bench.device.type == "cuda"
    device = torch.device("cuda", rank) if on_gpu else bench.device
    if on_gpu:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", init_method=f"file://{folder}/meeting", rank=rank,
        world_size=processes, timeout=TIMEOUT,
    )  # fmt: skip
    settings = replace(
        bench.settings(bench.sizes.batch), device=device, strategy=strategy, processes=processes
    )
    training = tokenizer_training(bench.sizes.tokenizer, settings, images=False)
    # As many steps in every process: they go together.
    timing = time_steps(lambda: training.step(training.batch), device, seconds=bench.seconds, agree=_slowest)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(vars(timing)))
    dist.destroy_process_group()


def _slowest(seconds: float) -> float:
    """The longest of all processes' durations."""
    told = torch.tensor(seconds, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(told, dist.ReduceOp.MAX)
    return float(told)
