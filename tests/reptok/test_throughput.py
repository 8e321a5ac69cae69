"""MFU is achieved arithmetic over that of a matrix product on the same device."""

import pytest
import torch

from reptok import throughput
from reptok.throughput import matmul_speed, mfu


def test_utilisation_of_known_figures():
    # 450 images of 773 GFLOP a second on a device of 798 TFLOP/s
    assert mfu(450, 773e9, 798e12) == pytest.approx(0.436, abs=5e-4)
    assert mfu(8 * 450, 773e9, 798e12, devices=8) == mfu(450, 773e9, 798e12)


def test_the_speed_is_operations_over_seconds(monkeypatch):
    clock = iter([0.0, *(step / 2 for step in range(1000))])  # half a second between two looks at it
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: next(clock))
    monkeypatch.setitem(throughput.MATRIX, "cpu", 16)
    products = []
    real = torch.mm
    monkeypatch.setattr(throughput.torch, "mm", lambda a, b, out: products.append(real(a, b, out=out)))
    before = torch.random.get_rng_state()
    assert matmul_speed("cpu") == 2 * 16**3 / 0.5
    assert torch.equal(torch.random.get_rng_state(), before)
    assert products[0].shape == (16, 16) and products[0].dtype == torch.float32
