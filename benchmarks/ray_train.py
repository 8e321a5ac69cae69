"""A training under Ray Train that records 20 metrics in every step against a bare torch loop.

The bare loop runs in a process of its own that knows neither Ray nor MLflow; both take turns. What counts is
the CPU time of the worker, of the driver, which writes the record, and of the queue between them, beyond what
these three use in the same time while they wait for the bare loop. Building the network counts on neither
side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.compare import Comparison

STEPS, PAIRS, METRICS = 30, 11, 20
SETTLE_SECONDS = 2.0  # until what was recorded is written
TOLERANCE = 1e-5
BATCH, SEED = 64, 0


def run() -> Comparison:
    """Train a mixer on random tokens; a step takes about 0.15 s of one core."""
    from pipelines.dag import cluster
    from pipelines.dag.stage import Workspace
    from pipelines.dag.tracking import Tracker, TrackingConfig
    from pipelines.training.ray_train import start

    cluster.configure(cluster.ClusterConfig(num_cpus=1))
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(TrackingConfig(), folder, {})
        log = tracker.stage("bench", tags={}, params={}, run_id=None, created=lambda _: None, inputs={})
        out = Workspace(f"{folder}/out", "bench", log)
        try:
            start(measure, {"driver": os.getpid(), "out": out}, _config(), out)
        finally:
            cluster.shutdown()
        log.flush()
        recorded = _recorded(folder, log.run_id)
        tracker.close("FINISHED")
        pairs, waiting = json.loads((out.scratch / "pairs.json").read_text())
    expected = METRICS * STEPS * (PAIRS + 1)
    if recorded != expected:
        raise RuntimeError(f"{recorded} of {expected} metrics reached the tracking server")
    ours, theirs = (median(side) for side in zip(*pairs, strict=True))
    return Comparison(
        f"{STEPS} mixer steps under Ray Train, {METRICS} metrics a step",
        ours,
        theirs,
        "a bare torch loop in a process of its own",
        median(b / a for a, b in pairs),
        f"equal weights; all {expected:,} metrics recorded; waiting costs {median(waiting):.1%} of a core",
    )


def measure(settings: dict[str, Any]) -> None:
    """Inside Ray Train: both sides in turns; the CPU-seconds go to `pairs.json`."""
    import psutil

    config, out, log = _config(), settings["out"], settings["log"]
    torch.set_num_threads(config.threads)
    queue = [
        process for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [""])[0].startswith("ray::_QueueActor")
    ]  # fmt: skip
    others = [psutil.Process(settings["driver"]), *queue]

    def spent() -> float:
        return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in others)

    command = [sys.executable, "-m", "benchmarks.ray_train"]
    repository = Path(__file__).resolve().parents[1]
    pairs, waiting = [], []
    with subprocess.Popen(
        command, cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as bare:
        assert bare.stdin is not None and bare.stdout is not None
        for number in range(PAIRS + 1):
            before, begun = spent(), time.monotonic()
            bare.stdin.write("go\n")
            bare.stdin.flush()
            theirs, weight = json.loads(bare.stdout.readline())
            waiting.append((spent() - before) / (time.monotonic() - begun))
            work = _tracked(log, number * STEPS)
            before, begun = spent(), time.monotonic()
            averages = work()
            time.sleep(SETTLE_SECONDS)
            ours = spent() - before - waiting[-1] * (time.monotonic() - begun)
            pairs.append((ours, theirs))
            mine = _stands_for(averages)
            if abs(mine - weight) > TOLERANCE * abs(weight):
                raise RuntimeError(f"the two trainings end with other weights: {mine} and {weight}")
        bare.stdin.close()
    (out.scratch / "pairs.json").write_text(json.dumps([pairs[1:], waiting[1:]]))


def _config() -> Any:
    from reptok.training.config import OptimConfig, TrainConfig

    return TrainConfig(
        steps=STEPS, batch_size=BATCH, optim=OptimConfig(lr=1e-3, warmup_steps=1), ema_decay=0.99,
        log_every=1, checkpoint_every_seconds=1e9, workers=1, threads=1,
    )  # fmt: skip


def _objective() -> tuple[Any, Any]:
    """The generator's objective, and a batch."""
    import numpy as np

    from reptok.configs import GeneratorConfig
    from reptok.data.batch import GeneratorBatch
    from reptok.generator.generator import TokenGenerator
    from reptok.training.objectives import GeneratorObjective

    torch.manual_seed(SEED)
    config = GeneratorConfig(condition="class", num_classes=10, token_dim=256, dim=512, depth=4)
    generator = TokenGenerator(config)
    objective = GeneratorObjective(generator, generator.reads(config), "uniform").train()
    tokens, labels = torch.randn(BATCH, 1, 256), torch.arange(BATCH) % 10
    return objective, GeneratorBatch(tokens, [""] * BATCH, labels, np.arange(BATCH))


def _tracked(log: Any, begin: int) -> Callable[[], Sequence[torch.Tensor]]:
    """Prepare a training by the project's own loop; it returns the averaged weights."""
    from reptok.training.loop import train
    from reptok.training.parallel import parallelize
    from reptok.training.state import TrainState
    from reptok.training.step import StepRandom, TrainStep

    config = _config()
    objective, batch = _objective()
    state = TrainState(objective, config.optim, config.ema_decay)
    step = TrainStep(parallelize(objective), state, config.optim, config.steps)

    def record(values: Any, at: int) -> None:
        if not values:  # there is no validation
            return
        more = {f"extra/{number}": 0.0 for number in range(METRICS - len(values))}
        log.metrics(dict(list({**values, **more}.items())[:METRICS]), begin + at)
        log.progress(at, config.steps)

    def work() -> Sequence[torch.Tensor]:
        train(
            state, step, config,
            batches=lambda position: repeat(batch),
            random=lambda at: StepRandom(SEED, at, BATCH, slice(0, BATCH)),
            log=record,
            save=lambda: None,
        )  # fmt: skip
        return list(state.ema.weights.values())

    return work


def _bare() -> tuple[float, float]:
    """Train as one would without any of this; return CPU-seconds and the number for the weights."""
    from reptok.training.step import StepRandom

    config = _config()
    objective, batch = _objective()
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    averages = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=config.optim.lr, weight_decay=0.0, fused=True)
    begun = time.process_time()
    for number in range(STEPS):
        loss = objective(batch, StepRandom(SEED, number, BATCH, slice(0, BATCH)))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optim.grad_clip)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(
                averages, parameters, 1 - min(config.ema_decay, (1 + number) / (10 + number))
            )
        loss.item()
    return time.process_time() - begun, _stands_for(averages)


def _stands_for(weights: Sequence[torch.Tensor]) -> float:
    """Return a number that equal weights share."""
    return sum(float(weight.detach().double().abs().sum()) for weight in weights)


def _recorded(folder: str, run: str | None) -> int:
    """Count the metrics of a run in the tracking store."""
    import sqlite3

    with sqlite3.connect(f"{folder}/mlflow.db") as database:
        (count,) = database.execute("select count(*) from metrics where run_uuid = ?", (run,)).fetchone()
    return int(count)


if __name__ == "__main__":  # the bare loop, once for every line on standard input
    torch.set_num_threads(1)
    for _ in sys.stdin:
        print(json.dumps(_bare()), flush=True)
