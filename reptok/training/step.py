"""One training step: from a batch to new weights.

All randomness of a step is drawn for the whole batch from (seed, step), and each process, and each part of
its share, keeps its own rows: how the batch is divided does not enter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function

from reptok.flow.time import sample_logit_normal, sample_uniform
from reptok.training.config import OptimConfig, Precision, TimeSampling
from reptok.training.norms import LayerNorms
from reptok.training.optim import clip_scale, gradient_norm, lr_factor
from reptok.training.parallel import Alone
from reptok.training.state import TrainState
from reptok.training.stopwatch import Stopwatch


class StepRandom:
    """The random numbers of one step, drawn for the global batch and cut to this rank's rows."""

    def __init__(
        self, seed: int, step: int, batch_size: int, mine: slice, device: torch.device | str = "cpu"
    ):
        """Start the generator of a step.

        Args:
            seed: The training's seed.
            step: The step's number.
            batch_size: Samples of the step over all ranks.
            mine: This rank's rows of them.
            device: Where to draw; CPU and GPU draw different numbers.
        """
        self.step, self.device, self.batch_size = step, torch.device(device), batch_size
        self._generator = torch.Generator(self.device).manual_seed((seed << 32) + step)
        self._seed, self._mine = seed, mine

    @property
    def size(self) -> int:
        """Number of this rank's samples."""
        return self._mine.stop - self._mine.start

    def part(self, rows: slice) -> StepRandom:
        """Return the same step's numbers, from its first on, for some of this rank's rows."""
        start = self._mine.start
        mine = slice(start + rows.start, start + rows.stop)
        return StepRandom(self._seed, self.step, self.batch_size, mine, self.device)

    def normal(self, *shape: int) -> Tensor:
        """Draw N(0, 1) for each of this rank's samples, (B, *shape)."""
        full = (self.batch_size, *shape)
        return torch.randn(full, generator=self._generator, device=self.device)[self._mine]

    def times(self, sampling: TimeSampling, loc: float = 0.0, scale: float = 1.0) -> Tensor:
        """Draw training times in (0, 1), (B,); `loc` and `scale` are those of logit-normal ones."""
        where: dict[str, Any] = {"generator": self._generator, "device": self.device}
        if sampling == "uniform":
            return sample_uniform(self.batch_size, **where)[self._mine]
        return sample_logit_normal(self.batch_size, loc=loc, scale=scale, **where)[self._mine]

    def coins(self, probability: float) -> Tensor:
        """Toss a coin for each sample, bool (B,), True with `probability`."""
        return (
            torch.rand(self.batch_size, generator=self._generator, device=self.device)[self._mine]
            < probability
        )


def products_in(precision: Precision, device: torch.device | str) -> AbstractContextManager[Any]:
    """Let matrix products within the block have that precision."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16) if precision == "bfloat16" else nullcontext()


class NonFiniteError(FloatingPointError):
    """Too many steps in a row gave no finite gradient."""


class OnItsWay:
    """Scalars of a step that is queued on the device, on their way to the host."""

    def __init__(self, names: Sequence[str], values: Tensor):
        """Begin to copy.

        Args:
            names: Of the values.
            values: (len(names),), on the device.
        """
        self._names = names
        self._values = values.to("cpu", non_blocking=True)  # pinned, where it comes from a GPU
        self._arrived = torch.cuda.Event() if values.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> dict[str, float]:
        """Wait until they are here, if they are not, and return them by name."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return dict(zip(self._names, self._values.tolist(), strict=True))


class Begun:
    """A step that is queued on the device; what it found is known when `read` has waited for it."""

    def __init__(self, settle: Callable[[], dict[str, float]]):
        self._settle = settle
        self._values: dict[str, float] | None = None

    def read(self) -> dict[str, float]:
        """Return the values of :meth:`TrainStep.__call__`; waits for the device, once.

        Raises:
            NonFiniteError: See there.
        """
        if self._values is None:
            self._values = self._settle()
        return dict(self._values)


class TrainStep:
    """Backward pass, clipping, optimiser and average; a step without a finite gradient changes no weight.

    The host never waits for the step that it queues: the optimiser learns on the device whether the gradient
    is finite, and what the host has to know of a step (for the average, the curves, what processes ask for)
    it reads while the next one computes.

    Attributes:
        clock: Times the forward passes, which wait for no other process but where weights are sharded.
    """

    def __init__(
        self,
        parallel: Alone,
        state: TrainState,
        optim: OptimConfig,
        total_steps: int,
        *,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        accumulate: int = 1,
        max_skipped: int = 10,
        norms: LayerNorms | None = None,
    ):
        """Bind an objective to the state that it trains.

        Args:
            parallel: The objective, in one process or several. It is called with (batch, random) and returns
                batch means with "loss" among them, and possibly "segments" (see `objectives`).
            state: Weights and optimiser; `step` is left to the loop.
            optim: Schedule and clipping.
            total_steps: Length of the training, for the schedule.
            precision: "bfloat16" runs matrix products in bfloat16; weights and losses stay float32.
            device: Where the model is.
            accumulate: Parts that this process's share of a batch is divided into.
            max_skipped: Steps without a finite gradient, one after the other, before giving up.
            norms: Looks at layers in some of the steps.
        """
        self.parallel, self.state, self.optim, self.total_steps = parallel, state, optim, total_steps
        self.device, self.accumulate, self.max_skipped = torch.device(device), accumulate, max_skipped
        self.precision = precision
        self.clock = Stopwatch(self.device)
        self._norms = norms
        self._running: Begun | None = None

    def __call__(self, batch: Any, random: StepRandom, requests: Mapping[str, float] | None = None) -> Begun:
        """Begin to train on one batch; the average follows when this or the next step's result is read.

        Args:
            batch: This process's share.
            random: The step's random numbers, for that share.
            requests: Numbers that are summed over the processes, such as 1.0 for what one asks all to do.

        Returns:
            The step, whose `read` gives the objective's values over the whole batch, "grad_norm" before
            clipping and "lr", and for every segment k of time "segment_sum_{k}" and "segment_count_{k}"; only
            "skipped" 1.0 where nothing was updated. Beside that each request's sum.

        Raises:
            NonFiniteError: `max_skipped` steps in a row had no finite gradient; names the batch's samples.
        """
        requests = requests or {}
        names, numbers, factor = self._queue(batch, random, requests)
        found = OnItsWay(names, numbers)
        at, samples = (self.state.step, self.state.samples), getattr(batch, "samples", None)
        self._running = Begun(lambda: self._settled(found, list(requests), factor, at, samples))
        return self._running

    def _queue(
        self, batch: Any, random: StepRandom, requests: Mapping[str, float]
    ) -> tuple[list[str], Tensor, float]:
        """Queue a step's work; return its numbers, on the device, by name, and the learning rate's factor."""
        names, numbers, norm = self._differentiate(
            batch, random, list(requests), self._sent(list(requests.values())), self._due()
        )
        if self._running is not None:
            self._running.read()  # its average is of the weights as they are now
        factor = lr_factor(self.state.step, self.total_steps, self.optim)
        self._update(norm, factor)
        return names, numbers, factor

    def _due(self) -> LayerNorms | None:
        return self._norms if self._norms is not None and self._norms.due(self.state.step) else None

    def _differentiate(
        self, batch: Any, random: StepRandom, requests: list[str], asked: Tensor, norms: LayerNorms | None
    ) -> tuple[list[str], Tensor, Tensor]:
        """Make the gradients; return the step's numbers with their names, and the gradients' norm."""
        parallel, weights = self.parallel, self.state.weights
        with norms.watching() if norms else nullcontext():
            values = self._backward(batch, random)
        looked = norms.measure(weights, parallel) if norms else {}
        norm = gradient_norm(list(weights.values()), parallel.of_one_copy if parallel.shards > 1 else None)
        segments = values.pop("segments", torch.zeros(2, 0, device=self.device))
        scalars = torch.stack([value.float() for value in values.values()])
        # Every process reads the same numbers and so decides alike.
        summed = parallel.total(torch.cat([scalars, asked, segments.flatten()]))
        names = [*values, *requests]
        names += [f"segment_{kind}_{k}" for kind in ("sum", "count") for k in range(segments.shape[1])]
        more = torch.stack([norm.float(), *looked.values()])
        return [*names, "grad_norm", *looked], torch.cat([summed, more]), norm

    def _update(self, norm: Tensor, factor: float | Tensor) -> None:
        """Move the weights along the gradients, unless their norm is not finite, and forget these."""
        infinite = norm.isfinite().logical_not().float()
        with record_function("optimizer"):
            self.state.optimizer.step(factor, scale=clip_scale(norm, self.optim.grad_clip), skipped=infinite)
        self.state.optimizer.zero_grad()

    def _backward(self, batch: Any, random: StepRandom) -> dict[str, Tensor]:
        """Leave the gradients of this process's share in the weights, and return its part of the means."""
        parallel = self.parallel
        values: dict[str, Tensor] = {}
        parts = list(self._parts(batch, random))
        for number, (piece, draws) in enumerate(parts, start=1):
            share = draws.size / draws.batch_size
            with parallel.accumulating(last=number == len(parts)):
                with (
                    products_in(self.precision, self.device),
                    record_function("forward"),
                    self.clock.running(),
                ):
                    losses = parallel.module(piece, draws)
                scale = share * parallel.world_size  # of processes the mean is taken, of samples the sum
                with record_function("backward"):
                    (losses["loss"] if scale == 1 else losses["loss"] * scale).backward()
            for name, value in losses.items():
                mean = value.detach() if name == "segments" else value.detach() * share
                values[name] = values[name] + mean if name in values else mean
        self.clock.turn()
        return values

    def _settled(
        self, found: OnItsWay, requests: list[str], factor: float, at: tuple[int, int], samples: Any
    ) -> dict[str, float]:
        """Learn what a step found, and take its weights into the average."""
        state, values = self.state, found.read()
        if math.isfinite(values["grad_norm"]):
            self._average(at[0])
            state.skipped = 0
            return {**values, "lr": self.optim.lr * factor}
        state.skipped += 1
        if state.skipped >= self.max_skipped:
            raise NonFiniteError(
                f"{state.skipped} steps in a row, the last one step {at[0]}, had no finite gradient "
                f"(its batch begins at sample {at[1]} of the stream and holds the samples "
                f"{'?' if samples is None else samples.tolist()}); lower train.optim.lr or look at the data"
            )
        return {"skipped": 1.0, **{name: values[name] for name in requests}}

    def _average(self, step: int) -> None:
        """Take the weights after update number `step`, which is known to be one, into their average."""
        self.state.ema.update(step)

    def _sent(self, numbers: Sequence[float]) -> Tensor:
        """Send numbers to the device; nobody waits for them."""
        here = torch.tensor([float(number) for number in numbers])
        if self.device.type == "cuda":
            here = here.pin_memory()
        return here.to(self.device, non_blocking=True)

    def _parts(self, batch: Any, random: StepRandom) -> Iterator[tuple[Any, StepRandom]]:
        """Divide this process's share into as many parts, of equal size up to one sample."""
        if self.accumulate == 1:
            yield batch, random
            return
        edges = [random.size * number // self.accumulate for number in range(self.accumulate + 1)]
        for start, stop in pairwise(edges):
            yield batch.part(slice(start, stop)), random.part(slice(start, stop))
