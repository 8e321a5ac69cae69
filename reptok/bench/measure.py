"""A training's speed, utilisation and memory, at the largest batch that the device takes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from reptok.bench.clock import Timing, time_steps
from reptok.bench.trainings import Settings, Training
from reptok.throughput import mfu


@dataclass(frozen=True)
class Measured:
    """What a training reaches.

    Attributes:
        training: It, warmed up.
        timing: Of a step.
        ceiling: FLOP/s of a large matrix product, the 100 % of `utilisation`.
    """

    training: Training
    timing: Timing
    ceiling: float

    @property
    def images_per_second(self) -> float:
        """Samples trained on, per second, on this device."""
        return self.training.batch_size / self.timing.seconds

    @property
    def flops_per_second(self) -> float:
        """Arithmetic that the model needs, per second."""
        return self.images_per_second * self.training.flops_per_image

    @property
    def utilisation(self) -> float:
        """MFU against the device's matrix product."""
        return mfu(self.images_per_second, self.training.flops_per_image, self.ceiling)


def measure(
    build: Callable[[Settings], Training],
    settings: Settings,
    ceiling: float,
    *,
    seconds: float,
    flops_per_image: int = 0,
) -> Measured:
    """Train for about `seconds`, with a smaller batch where `settings.batch_size` does not fit.

    Args:
        build: Makes the training.
        settings: Where and how.
        ceiling: From `matmul_speed`, for the same device and precision.
        seconds: Of timed steps.
        flops_per_image: Where given, the batch is made so small that a few steps take about `seconds`.

    Raises:
        torch.OutOfMemoryError: Not even one sample fits.
    """
    affordable = int(seconds / 8 * ceiling / flops_per_image) if flops_per_image else settings.batch_size
    settings = _of_size(settings, max(1, min(settings.batch_size, affordable)))
    while True:
        try:
            training = build(settings)
            return Measured(training, _time(training, settings.device, seconds), ceiling)
        except torch.OutOfMemoryError:
            training = None
            if settings.batch_size == 1:
                raise
        forget(settings.device)
        settings = _of_size(settings, settings.batch_size // 2)


def forget(device: torch.device) -> None:
    """Give unused memory back, and let the next network be compiled for its own shapes."""
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _of_size(settings: Settings, batch_size: int) -> Settings:
    return replace(settings, batch_size=batch_size, accumulate=min(settings.accumulate, batch_size))


def _time(training: Training, device: torch.device, seconds: float) -> Timing:
    return time_steps(lambda: training.step(training.batch), device, seconds=seconds)
