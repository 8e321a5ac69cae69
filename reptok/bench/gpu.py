"""What trains and what is computed with frozen networks, at the paper's sizes on one machine: one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reptok.attention import preferred, stated
from reptok.bench import frozen, scaling, steps
from reptok.bench.measure import forget
from reptok.bench.result import HEADER, Kept, Result, table_line
from reptok.bench.sizes import PAPER, TINY, Bench
from reptok.throughput import matmul_speed, published_peak
from reptok.training.config import Precision

SECONDS = 8.0  # of timed steps, for each row
BUDGET_SECONDS = 480.0
PARTS: Mapping[str, Callable[[Bench], Iterator[Result]]] = {
    "decoder": steps.decoder,
    "tokenizer": steps.tokenizer,
    "mixer": steps.mixer,
    "waits": steps.waits,
    "encode": frozen.encode,
    "decode": frozen.decode,
    "jpeg": frozen.jpeg,
    "text": frozen.text,
    "scaling": scaling.scaling,
    "others": steps.others,
}


@dataclass
class _Clock:
    begun: float
    budget: float

    def over(self) -> bool:
        return time.perf_counter() - self.begun > self.budget


def run(
    device: torch.device | None = None,
    *,
    seconds: float = SECONDS,
    budget_seconds: float = BUDGET_SECONDS,
    file: Path | None = None,
    only: str | None = None,
    say: Callable[[str], None],
) -> int:
    """Measure every part and say its rows as soon as they are known.

    Args:
        device: A GPU, or the CPU, where everything is tiny; the first GPU there is when None.
        seconds: Duration of each row's timed steps.
        budget_seconds: After so long no part is begun any more.
        file: Keeps what was measured; parts that it holds of the same machine are not measured again.
        only: A name of `PARTS`, for one of them.
        say: Takes lines of text.

    Returns:
        How many parts could not be measured, for an error or for want of time.

    Raises:
        ValueError: There is no part of that name.
    """
    if only is not None and only not in PARTS:
        raise ValueError(f"{only!r} is not one of {', '.join(PARTS)}")
    clock = _Clock(time.perf_counter(), budget_seconds)
    if device is None:
        device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    on_gpu = device.type == "cuda"
    precision: Precision = "bfloat16" if on_gpu else "float32"
    machine = describe(device, precision)
    say(f"{machine['device']}, torch {machine['torch']}, {precision}, blocks {machine['blocks']}, optimiser "
        "and average included, random data")  # fmt: skip
    if not on_gpu:
        say(
            "No GPU: everything is tiny and on the CPU. It shows that the command runs; no figure compares "
            "with a goal."
        )
    if kernels := stated(device):
        say(kernels)
    ceiling, peak = matmul_speed(device, precision), published_peak(device) or 0.0
    promised = f"; its maker promises {peak / 1e12:,.0f}" if peak else ""
    say(f"a large matrix product: {ceiling / 1e12:,.3g} TFLOP/s, the 100 % of MFU{promised}\n")
    bench = Bench(PAPER if on_gpu else TINY, device, precision, on_gpu, seconds, ceiling, peak)
    say(table_line(HEADER))
    kept, missing, results = Kept(file, machine), [], []
    for name, part in PARTS.items():
        if only not in (None, name):
            continue
        found = kept.get(name)
        if found is None and clock.over():
            missing.append(f"{name} (no time left)")
            continue
        if found is None:
            found = []
            try:
                with preferred(device):
                    for result in part(bench):
                        found.append(result)
                        say(result.line())
            except Exception as error:  # the other parts are worth having
                missing.append(name)
                say(f"{name} failed: {type(error).__name__}: {error}")
            else:
                kept.put(name, found)
            forget(device)
        else:
            for result in found:
                say(f"{result.line()}  (kept)")
        results += found
    _close(say, results, missing, on_gpu, time.perf_counter() - clock.begun)
    return len(missing)


def describe(device: torch.device, precision: str) -> dict[str, Any]:
    """What figures belong to."""
    on_gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_gpu else "CPU",
        "devices": torch.cuda.device_count() if on_gpu else 1,
        "torch": torch.__version__,
        "precision": precision,
        "blocks": "compiled" if on_gpu else "not compiled",
        "sizes": "the paper's" if on_gpu else "tiny",
    }


def _close(
    say: Callable[[str], None], results: list[Result], missing: list[str], judged: bool, seconds: float
) -> None:
    """Say what fell short of its goal, and what is not there."""
    say("")
    short = [text for result in results if judged and (text := result.shortfall())]
    for text in short:
        say(f"short of its goal: {text}")
    if judged and not short:
        say("every goal that was measured is reached")
    if missing:
        say(f"not measured: {', '.join(missing)}; with --file the same command goes on with these")
    say(f"{seconds:.0f} s in all")
