"""How well a device is used: achieved arithmetic beside that of a plain matrix product on the same device.

FLOP here is 2 x MAC, as vendors count. The ceiling is measured, not looked up, so it holds for any device,
clock and precision; the published peak of a GPU is a fifth or so above it.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from reptok.training.config import Precision

MATRIX = {"cuda": 8192, "cpu": 1024}
SECONDS = 0.5


def matmul_speed(device: torch.device | str, precision: Precision = "float32") -> float:
    """Measure FLOP/s of large square matrix products; takes about a second.

    Args:
        device: Where to compute.
        precision: "bfloat16", or "float32" with whatever TF32 setting is in force.
    """
    device = torch.device(device)
    n = MATRIX.get(device.type, 2048)
    own = torch.Generator(device).manual_seed(0)  # a training's random numbers stay as they are
    a, b = torch.randn(2, n, n, device=device, generator=own).to(getattr(torch, precision))
    out = torch.empty_like(a)
    torch.mm(a, b, out=out)
    _finish(device)
    durations: list[float] = []
    begun = time.perf_counter()
    while len(durations) < 5 or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        for _ in range(8 if device.type == "cuda" else 1):  # the wait for the device is a few microseconds
            torch.mm(a, b, out=out)
        _finish(device)
        durations.append((time.perf_counter() - start) / (8 if device.type == "cuda" else 1))
    return 2 * n**3 / median(durations)


def mfu(images_per_second: float, flops_per_image: float, matmul_speed: float, devices: int = 1) -> float:
    """Model FLOPs utilisation: the share of the devices' matrix-product speed that a training uses.

    Args:
        images_per_second: Over all devices.
        flops_per_image: Forward and backward, without recomputation; see `reptok.flops.tokenizer_training`
            and `generator_training`.
        matmul_speed: FLOP/s of one device, as :func:`matmul_speed` measures it.
        devices: How many share the work.
    """
    return images_per_second * flops_per_image / (matmul_speed * devices)


def _finish(device: torch.device) -> None:
    """Wait for all work queued on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
