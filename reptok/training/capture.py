"""A step recorded once, as a CUDA graph, and then replayed: one launch by the host instead of thousands.

It pays where a step is so short that the host cannot launch it as fast as the device computes it: the
mixer's. What differs between steps lies in tensors that stay where they are: the batch, the random numbers,
learning rate, decay of the average and requests. The average is part of the recording, too, so that nothing
has to be known of a step before the next one begins.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from reptok.training.norms import LayerNorms
from reptok.training.optim import lr_factor
from reptok.training.step import StepRandom, TrainStep
from reptok.training.stopwatch import Stopwatch

WARM_STEPS = 3
"""Steps of a shape that are trained before one is recorded: they compile, and allocate what stays."""
Work = Callable[[], None]


class CapturedStep(TrainStep):
    """A training step that is replayed, once for every shape that a batch has; in one process."""

    def __init__(self, *arguments: Any, capture: Callable[[Work], Work] | None = None, **keywords: Any):
        """See `TrainStep`.

        Args:
            *arguments: Of `TrainStep`.
            capture: Records work, and returns what does it again; by default as a CUDA graph.
            **keywords: Of `TrainStep`.

        Raises:
            ValueError: There are several processes, or the device is no GPU.
        """
        super().__init__(*arguments, **keywords)
        if self.parallel.world_size > 1:
            raise ValueError(
                "train.cuda_graphs records the step of one process; set it to false, or workers to 1"
            )
        if capture is None and self.device.type != "cuda":
            raise ValueError("train.cuda_graphs needs a GPU; set it to false")
        self._capture = capture or CudaGraphs(self.device)
        self.clock = Stopwatch(torch.device("cpu"))  # a GPU's events cannot be asked within a recording
        self._scalars = torch.zeros(0, device=self.device)
        self._recorded: dict[Any, _Recorded] = {}

    def _queue(
        self, batch: Any, random: StepRandom, requests: Mapping[str, float]
    ) -> tuple[list[str], Tensor, float]:
        state = self.state
        factor = lr_factor(state.step, self.total_steps, self.optim)
        sent = self._sent([factor, 1 - state.ema.decay_at(state.step), *requests.values()])
        if self._scalars.shape != sent.shape:
            self._scalars, self._recorded = sent, {}
        self._scalars.copy_(sent)
        if norms := self._due():
            return (*self._whole(batch, random, list(requests), norms), factor)
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in batch.tensors())
        if key not in self._recorded:
            self._recorded[key] = _Recorded(
                batch,
                random,
                self._capture,
                lambda batch, random: self._whole(batch, random, list(requests), None),
            )
        return (*self._recorded[key](batch, random), factor)

    def _whole(
        self, batch: Any, random: StepRandom, requests: list[str], norms: LayerNorms | None
    ) -> tuple[list[str], Tensor]:
        """Train on a batch, weights' average included."""
        factor, share, asked = self._scalars[0], self._scalars[1], self._scalars[2:]
        names, numbers, norm = self._differentiate(batch, random, requests, asked, norms)
        self._update(norm, factor)
        self.state.ema.update_on_device(torch.where(norm.isfinite(), share, 0.0))
        return names, numbers

    def _average(self, step: int) -> None:
        """The device has done it."""


class CudaGraphs:
    """Records work as CUDA graphs that share their memory, as one after the other is run."""

    def __init__(self, device: torch.device):
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> Work:
        """Record `work`, which is not done by that; call what is returned to do it."""
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self._device)
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            work()
        self._pool = graph.pool()
        return graph.replay


class _Recorded:
    """The step for batches of one shape."""

    def __init__(
        self,
        batch: Any,
        random: StepRandom,
        capture: Callable[[Work], Work],
        work: Callable[[Any, StepRandom], tuple[list[str], Tensor]],
    ):
        self._batch, self._draws = copy.deepcopy(batch.to(random.device)), _KeptRandom(random)
        self._capture, self._work = capture, work
        self._warm = 0
        self._replay: Work | None = None
        self._result: tuple[list[str], Tensor] | None = None

    def __call__(self, batch: Any, random: StepRandom) -> tuple[list[str], Tensor]:
        for mine, given in zip(self._batch.tensors(), batch.tensors(), strict=True):
            mine.copy_(given, non_blocking=True)
        self._draws.refill(random)
        if self._warm < WARM_STEPS:
            self._warm += 1
            return self._work(self._batch, self._draws)
        if self._replay is None:
            self._replay = self._capture(self._do)
            self._draws.rewind()
        self._replay()
        assert self._result is not None
        return self._result

    def _do(self) -> None:
        self._draws.rewind()
        self._result = self._work(self._batch, self._draws)


class _KeptRandom(StepRandom):
    """The random numbers of one step after the other, in the same tensors."""

    def __init__(self, random: StepRandom):
        self.step, self.device, self.batch_size = random.step, random.device, random.batch_size
        self._mine, self._random = random._mine, random
        self._kept: list[tuple[str, tuple[Any, ...], Tensor]] = []
        self._parts: dict[tuple[int, int], _KeptRandom] = {}
        self._next = 0

    def rewind(self) -> None:
        """Give the numbers again, from the first."""
        self._next = 0
        for part in self._parts.values():
            part.rewind()

    def refill(self, random: StepRandom) -> None:
        """Draw a step's numbers in the order in which they were asked for."""
        self.step, self._random = random.step, random
        for name, how, kept in self._kept:
            kept.copy_(getattr(random, name)(*how))
        for (start, stop), part in self._parts.items():
            part.refill(random.part(slice(start, stop)))
        self.rewind()

    def part(self, rows: slice) -> StepRandom:
        key = (rows.start, rows.stop)
        if key not in self._parts:
            self._parts[key] = _KeptRandom(self._random.part(rows))
        return self._parts[key]

    def normal(self, *shape: int) -> Tensor:
        return self._given("normal", *shape)

    def times(self, *how: Any) -> Tensor:
        return self._given("times", *how)

    def coins(self, probability: float) -> Tensor:
        return self._given("coins", probability)

    def _given(self, name: str, *how: Any) -> Tensor:
        if self._next == len(self._kept):
            self._kept.append((name, how, getattr(self._random, name)(*how).clone()))
        known, before, kept = self._kept[self._next]
        assert (known, before) == (name, how), "a step asks for other random numbers than the one before"
        self._next += 1
        return kept
