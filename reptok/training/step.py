"""One training step: batch in, losses out.

An objective is the arithmetic from a batch to per-sample losses; `TrainStep` is the arithmetic from losses
to new weights. All randomness of a step is drawn for the whole batch from (seed, step) and each rank keeps
its own rows, so that the number of ranks does not enter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from reptok.data.loader import GeneratorBatch, TokenizerBatch
from reptok.flow.time import sample_logit_normal, sample_uniform
from reptok.training.config import OptimConfig, Precision, TimeSampling
from reptok.training.optim import clip_gradients, lr_factor
from reptok.training.state import TrainState

if TYPE_CHECKING:
    from reptok.generator.conditioning import Condition
    from reptok.generator.generator import TokenGenerator
    from reptok.tokenizer import RepTok

Losses = dict[str, Tensor]
B = TypeVar("B")


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
        self.step, self.device = step, torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed((seed << 32) + step)
        self._batch_size, self._mine = batch_size, mine

    def normal(self, *shape: int) -> Tensor:
        """Draw N(0, 1) for each of this rank's samples, (B, *shape)."""
        full = (self._batch_size, *shape)
        return torch.randn(full, generator=self._generator, device=self.device)[self._mine]

    def times(self, sampling: TimeSampling) -> Tensor:
        """Draw training times in (0, 1), (B,)."""
        sample = {"logit_normal": sample_logit_normal, "uniform": sample_uniform}[sampling]
        return sample(self._batch_size, generator=self._generator, device=self.device)[self._mine]

    def coins(self, probability: float) -> Tensor:
        """Toss a coin for each sample, bool (B,), True with `probability`."""
        return (
            torch.rand(self._batch_size, generator=self._generator, device=self.device)[self._mine]
            < probability
        )


class TokenizerObjective(nn.Module):
    """The tokenizer's loss: velocity of the decoder plus preservation of the token (paper, section 3.2)."""

    def __init__(
        self,
        tokenizer: RepTok,
        preservation_weight: float,
        time_sampling: TimeSampling,
        *,
        draws: int = 1,
    ):
        """Train `tokenizer`.

        Args:
            tokenizer: What is trained.
            preservation_weight: lambda of the cosine loss.
            time_sampling: Distribution of t.
            draws: Noises and times that an encoded image is decoded from; they share the encoder's cost.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.preservation_weight, self.time_sampling, self.draws = preservation_weight, time_sampling, draws

    def forward(self, batch: TokenizerBatch, random: StepRandom, t: Tensor | None = None) -> Losses:
        """Return the batch means "loss", "velocity" and "preservation", scalars.

        Args:
            batch: Images, moments and frozen tokens, on any device; without images the decoder learns alone,
                from the frozen tokens.
            random: The step's random numbers.
            t: Times (B,), for a validation: one draw with them; drawn when None.
        """
        draws = range(self.draws if t is None else 1)
        images = batch.images
        moments = batch.moments.to(random.device, non_blocking=True)
        latent_shape = (moments.shape[1] // 2, *moments.shape[2:])
        autoencoder = self.tokenizer.autoencoder
        sample = autoencoder.config.sample
        latents = [
            autoencoder.latents_from_moments(moments, random.normal(*latent_shape) if sample else None)
            for _ in draws
        ]
        losses = self.tokenizer.losses(
            None if images is None else images.to(random.device, non_blocking=True),
            latents=torch.cat(latents),
            noise=torch.cat([random.normal(*latent_shape) for _ in draws]),
            t=torch.cat([random.times(self.time_sampling) for _ in draws]) if t is None else t,
            frozen_token=batch.frozen_token.to(random.device, non_blocking=True),
        )
        velocity, preservation = losses.velocity.mean(), losses.preservation.mean()
        loss = velocity + self.preservation_weight * preservation
        return {"loss": loss, "velocity": velocity, "preservation": preservation}


class GeneratorObjective(nn.Module):
    """The generator's loss: velocity of the token, its condition dropped at times (paper, section 3.3)."""

    def __init__(
        self,
        generator: TokenGenerator,
        conditions: Callable[[GeneratorBatch], Condition],
        time_sampling: TimeSampling,
    ):
        super().__init__()
        self.generator, self.conditions, self.time_sampling = generator, conditions, time_sampling

    def forward(self, batch: GeneratorBatch, random: StepRandom, t: Tensor | None = None) -> Losses:
        """Return the batch mean "loss", a scalar; with a given t (B,) no condition is dropped."""
        tokens = batch.tokens.to(random.device, non_blocking=True)
        noise = random.normal(*tokens.shape[1:])
        drop = random.coins(self.generator.config.condition_dropout)
        per_sample = self.generator.losses(
            tokens,
            self.conditions(batch).to(random.device),
            noise=noise,
            t=random.times(self.time_sampling) if t is None else t,
            drop=drop if t is None else torch.zeros_like(drop),
        )
        return {"loss": per_sample.mean()}


class NonFiniteError(FloatingPointError):
    """Too many steps in a row gave no finite gradient."""


class TrainStep:
    """Backward pass, clipping, optimiser and average; a step without a finite gradient changes no weight."""

    def __init__(
        self,
        objective: Callable[..., Losses],
        state: TrainState,
        optim: OptimConfig,
        total_steps: int,
        *,
        precision: Precision = "float32",
        device: torch.device | str = "cpu",
        max_skipped: int = 10,
    ):
        """Bind an objective (or its DistributedDataParallel) to the state that it trains.

        Args:
            objective: Called with (batch, random), returns scalars with "loss" among them.
            state: Weights and optimiser; `step` is left to the loop.
            optim: Schedule and clipping.
            total_steps: Length of the training, for the schedule.
            precision: "bfloat16" runs matrix products in bfloat16; weights and losses stay float32.
            device: Where the model is.
            max_skipped: Steps without a finite gradient, one after the other, before giving up.
        """
        self.objective, self.state, self.optim, self.total_steps = objective, state, optim, total_steps
        self.device = torch.device(device)
        self.autocast = precision == "bfloat16"
        self.max_skipped, self.skipped = max_skipped, 0

    def __call__(self, batch: B, random: StepRandom) -> dict[str, float]:
        """Train on one batch.

        Returns:
            The objective's values and "grad_norm" before clipping; only "skipped" 1.0 where nothing was
            updated.

        Raises:
            NonFiniteError: `max_skipped` steps in a row had no finite gradient; names the batch's samples.
        """
        step, optimizer = self.state.step, self.state.optimizer
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            losses = self.objective(batch, random)
        losses["loss"].backward()
        parameters = list(self.state.weights.values())
        # After DDP's reduction the norm is the same number on every rank, and so is the decision.
        norm = float(clip_gradients(parameters, self.optim.grad_clip))
        if finite := math.isfinite(norm):
            optimizer.step(lr_factor(step, self.total_steps, self.optim))
            self.state.ema.update(step)
        optimizer.zero_grad()
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped >= self.max_skipped:
            samples = getattr(batch, "samples", None)
            raise NonFiniteError(
                f"{self.skipped} steps in a row, the last one step {step}, had no finite gradient "
                f"(samples {samples if samples is None else samples[:8].tolist()} ...); lower train.optim.lr "
                "or look at the data"
            )
        if not finite:
            return {"skipped": 1.0}
        return {**{name: float(value.detach()) for name, value in losses.items()}, "grad_norm": norm}
