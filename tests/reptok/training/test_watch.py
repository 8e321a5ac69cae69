"""Two processes, one of which stops in the middle: the other one gives up soon, and says who and where."""

import os
import subprocess
import sys
import time

import pytest

PROGRAM = """
import os, sys, time
import torch
import torch.distributed as dist
from torch import nn
from reptok.training.parallel import Replicated
from reptok.training.watch import Watch

folder, where = sys.argv[1:]
rank = int(bool(os.fork()))
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
parallel = Replicated(nn.Linear(2, 2), torch.device("cpu"))
lines = open(f"{folder}/said-{rank}", "w", buffering=1)
watch = Watch(rank, 2, 0.7, lambda line: print(line, file=lines))
began = time.monotonic()
try:
    for step in range(5):
        watch(step, "data")
        if (rank, step, where) == (1, 3, "data"):
            time.sleep(6)
        watch(step, "step")
        if (rank, step, where) == (1, 3, "step"):
            time.sleep(6)
        parallel.module(torch.ones(1, 2)).sum().backward()
        if step == 0:
            parallel.in_step(2.0)
        watch(step, "evaluation")
        with parallel.patient():
            time.sleep(3 * (rank == 0 and step == 1))  # longer than a step may last
    outcome = "finished"
except RuntimeError as error:
    outcome = f"gave up after {time.monotonic() - began:.0f} s"
print(outcome, file=open(f"{folder}/end-{rank}", "w"), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("data", "rank 1 is at step 3 (data)"),
        pytest.param("step", "every rank is in it", marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named_and_the_others_do_not_wait_long(tmp_path, where, told):
    began = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path), where], env=environment)
    end = tmp_path / "end-0"
    while not (end.exists() and end.read_text()) and time.monotonic() - began < 60:
        time.sleep(0.1)
    process.wait(30)
    assert end.read_text().startswith("gave up")
    assert int(end.read_text().split()[3]) in range(5, 9)  # 3 s of evaluation, 2 of waiting
    lines = (tmp_path / "said-0").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith("step 3 has not ended") and told in lines[0]
