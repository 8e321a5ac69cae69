"""One training step: from a batch to new weights.

All randomness of a step is drawn for the whole batch from (seed, step), and each process, and each part of
its share, keeps its own rows: how the batch is divided does not enter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from reptok.flow.time import sample_logit_normal, sample_uniform
from reptok.training.config import OptimConfig, Precision, TimeSampling
from reptok.training.optim import clip_gradients, lr_factor
from reptok.training.parallel import Alone
from reptok.training.state import TrainState


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

    def times(self, sampling: TimeSampling) -> Tensor:
        """Draw training times in (0, 1), (B,)."""
        sample = {"logit_normal": sample_logit_normal, "uniform": sample_uniform}[sampling]
        return sample(self.batch_size, generator=self._generator, device=self.device)[self._mine]

    def coins(self, probability: float) -> Tensor:
        """Toss a coin for each sample, bool (B,), True with `probability`."""
        return (
            torch.rand(self.batch_size, generator=self._generator, device=self.device)[self._mine]
            < probability
        )


class NonFiniteError(FloatingPointError):
    """Too many steps in a row gave no finite gradient."""


class TrainStep:
    """Backward pass, clipping, optimiser and average; a step without a finite gradient changes no weight."""

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
        """
        self.parallel, self.state, self.optim, self.total_steps = parallel, state, optim, total_steps
        self.device, self.accumulate, self.max_skipped = torch.device(device), accumulate, max_skipped
        self.autocast = precision == "bfloat16"

    def __call__(
        self, batch: Any, random: StepRandom, requests: Mapping[str, bool] | None = None
    ) -> dict[str, float]:
        """Train on one batch.

        Args:
            batch: This process's share.
            random: The step's random numbers, for that share.
            requests: What this process asks all of them to do after the step.

        Returns:
            The objective's values over the whole batch, "grad_norm" before clipping and "lr", and for every
            segment k of time "segment_sum_{k}" and "segment_count_{k}"; only "skipped" 1.0 where nothing was
            updated. Beside that, under each request's name, how many processes asked for it.

        Raises:
            NonFiniteError: `max_skipped` steps in a row had no finite gradient; names the batch's samples.
        """
        state, parallel, requests = self.state, self.parallel, requests or {}
        values: dict[str, Tensor] = {}
        parts = list(self._parts(batch, random))
        for number, (piece, draws) in enumerate(parts, start=1):
            share = draws.size / draws.batch_size
            with parallel.accumulating(last=number == len(parts)):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                    losses = parallel.module(piece, draws)
                scale = share * parallel.world_size  # of processes the mean is taken, of samples the sum
                (losses["loss"] if scale == 1 else losses["loss"] * scale).backward()
            for name, value in losses.items():
                mean = value.detach() if name == "segments" else value.detach() * share
                values[name] = values[name] + mean if name in values else mean
        weights = list(state.weights.values())
        norm = clip_gradients(weights, self.optim.grad_clip, parallel.total if parallel.sharded else None)
        segments = values.pop("segments", torch.zeros(2, 0))
        asked = torch.tensor([float(wish) for wish in requests.values()], device=self.device)
        scalars = torch.stack([value.float() for value in values.values()])
        summed = parallel.total(torch.cat([scalars, asked, segments.to(self.device).flatten()]))
        # The step's one wait for the device. Every process reads the same numbers and so decides alike.
        *numbers, grad_norm = torch.cat([summed, norm.float()[None]]).tolist()
        names = [*values, *requests]
        names += [f"segment_{kind}_{k}" for kind in ("sum", "count") for k in range(segments.shape[1])]
        found = dict(zip(names, numbers, strict=True))
        factor = lr_factor(state.step, self.total_steps, self.optim)
        if not math.isfinite(grad_norm):
            self._skip(batch)
            return {"skipped": 1.0, **{name: found[name] for name in requests}}
        state.optimizer.step(factor)
        state.ema.update(state.step)
        state.optimizer.zero_grad()
        state.skipped = 0
        return {**found, "grad_norm": grad_norm, "lr": self.optim.lr * factor}

    def _parts(self, batch: Any, random: StepRandom) -> Iterator[tuple[Any, StepRandom]]:
        """Divide this process's share into as many parts, of equal size up to one sample."""
        if self.accumulate == 1:
            yield batch, random
            return
        edges = [random.size * number // self.accumulate for number in range(self.accumulate + 1)]
        for start, stop in pairwise(edges):
            yield batch.part(slice(start, stop)), random.part(slice(start, stop))

    def _skip(self, batch: Any) -> None:
        state = self.state
        state.optimizer.zero_grad()
        state.skipped += 1
        if state.skipped >= self.max_skipped:
            samples = getattr(batch, "samples", None)
            raise NonFiniteError(
                f"{state.skipped} steps in a row, the last one step {state.step}, had no finite gradient "
                f"(its batch begins at sample {state.samples} of the stream and holds the samples "
                f"{'?' if samples is None else samples.tolist()}); lower train.optim.lr or look at the data"
            )
