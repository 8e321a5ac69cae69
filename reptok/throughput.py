"""How well a device is used: achieved arithmetic beside that of a plain matrix product on the same device.

FLOP here is 2 x MAC, as vendors count. The ceiling is measured, not looked up, so it holds for any device,
clock and precision; the published peak of a GPU, which is a fifth or so above it, is known for some.
"""

from __future__ import annotations

import time
from statistics import median

import torch

from reptok.training.config import Precision

MATRIX = {"cuda": 8192, "cpu": 1024}
SECONDS = 0.5

PUBLISHED = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "RTX 5090": 210e12,
}
"""FLOP/s of dense bfloat16 products with float32 sums, from the makers' data sheets."""


def published_peak(device: torch.device | str) -> float | None:
    """Return FLOP/s of bfloat16 products as the device's maker promises them; None where unknown."""
    if torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PUBLISHED.items() if part in name), None)


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
