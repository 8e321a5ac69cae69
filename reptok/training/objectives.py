"""What is trained: the arithmetic from a batch to its losses, for the tokenizer and for the generator."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reptok.data.batch import GeneratorBatch, TokenizerBatch
from reptok.data.transforms import to_float
from reptok.encoder.preservation import preservation_loss
from reptok.training.config import TimeSampling
from reptok.training.step import StepRandom

if TYPE_CHECKING:
    from reptok.generator.conditioner import Conditioner
    from reptok.generator.conditioning import Condition
    from reptok.generator.generator import TokenGenerator
    from reptok.tokenizer import RepTok

Losses = dict[str, Tensor]
SEGMENTS = 8


@torch.no_grad()
def by_segment(losses: Tensor, t: Tensor) -> Tensor:
    """Sum losses (B,) by the segment of [0, 1] that their times (B,) lie in.

    Returns:
        float32 (2, 8): sums, and how many there were; segment 0 is next to noise.
    """
    segment = (t * SEGMENTS).long().clamp(0, SEGMENTS - 1)
    both = torch.stack([losses.float(), torch.ones_like(losses, dtype=torch.float32)])
    return both.new_zeros(2, SEGMENTS).index_add_(1, segment, both)


class TokenizerObjective(nn.Module):
    """The tokenizer's loss: velocity of the decoder plus preservation of the token (paper, section 3.2).

    It may have a first phase in which the decoder learns alone, from the frozen tokens (not in the paper).
    """

    def __init__(
        self,
        tokenizer: RepTok,
        preservation_weight: float,
        time_sampling: TimeSampling,
        *,
        draws: int = 1,
        decoder_first_steps: int = 0,
        time_loc: float = 0.0,
        time_scale: float = 1.0,
    ):
        """Train `tokenizer`.

        Args:
            tokenizer: What is trained.
            preservation_weight: lambda of the cosine loss.
            time_sampling: Distribution of t.
            draws: Noises and times that an encoded image is decoded from; they share the encoder's cost.
            decoder_first_steps: Length of the first phase.
            time_loc: Of logit-normal times.
            time_scale: Of logit-normal times.
        """
        super().__init__()
        self.tokenizer = tokenizer
        self.preservation_weight, self.draws = preservation_weight, draws
        self.decoder_first_steps = decoder_first_steps
        self._times = (time_sampling, time_loc, time_scale)

    def columns(self, step: int) -> frozenset[str]:
        """Return what the loss of a step looks at."""
        cached = frozenset({"moments", "frozen_token"})
        return cached if step < self.decoder_first_steps else cached | {"images"}

    def prepared(self, batch: TokenizerBatch, device: torch.device) -> TokenizerBatch:
        """Return the batch with what can be done before its step done."""
        return batch.to(device)

    def forward(self, batch: TokenizerBatch, random: StepRandom, t: Tensor | None = None) -> Losses:
        """Return the batch means "loss", "velocity" and "preservation", and "segments" (see `by_segment`).

        Args:
            batch: Images, moments and frozen tokens, on any device; images at least where the loss looks at
                them.
            random: The step's random numbers.
            t: Times (S, B), for a validation: every sample is encoded once, and decoded from the same noise
                at each of its S times; "velocity" is then (S,), and there is no "segments".
        """
        draws = range(self.draws if t is None else 1)
        moments, frozen_token = (
            found.to(random.device, non_blocking=True) for found in (batch.moments, batch.frozen_token)
        )
        images = None
        if t is not None or "images" in self.columns(random.step):
            if batch.images is None:
                raise ValueError(f"step {random.step} encodes images, and the batch was read without them")
            images = to_float(batch.images.to(random.device, non_blocking=True))
        moments = moments.float()
        latent_shape = (moments.shape[1] // 2, *moments.shape[2:])
        autoencoder = self.tokenizer.autoencoder
        sample = autoencoder.config.sample
        latents = [
            autoencoder.latents_from_moments(moments, random.normal(*latent_shape) if sample else None)
            for _ in draws
        ]
        noise = torch.cat([random.normal(*latent_shape) for _ in draws])
        if t is not None:
            tokens, target = self.tokenizer.adapted(images, frozen_token.float())
            at_times = [self.tokenizer.velocity_losses(tokens, latents[0], noise, row).mean() for row in t]
            preservation = preservation_loss(tokens, target).mean()
            return {"velocity": torch.stack(at_times), "preservation": preservation}
        times = torch.cat([random.times(*self._times) for _ in draws])
        losses = self.tokenizer.losses_by_draw(
            images,
            latents=torch.cat(latents),
            noise=noise,
            t=times,
            frozen_token=frozen_token.float(),
        )
        velocity, preservation = losses.velocity.mean(0).mean(), losses.preservation.mean()
        return {
            "loss": velocity + self.preservation_weight * preservation,
            "velocity": velocity,
            "preservation": preservation,
            "segments": by_segment(losses.velocity.flatten(), times),
        }


class GeneratorObjective(nn.Module):
    """The generator's loss: velocity of the token, its condition dropped at times (paper, section 3.3)."""

    def __init__(
        self,
        generator: TokenGenerator,
        conditioner: Conditioner,
        time_sampling: TimeSampling,
        *,
        time_loc: float = 0.0,
        time_scale: float = 1.0,
    ):
        super().__init__()
        self.generator, self.conditioner = generator, conditioner
        self._times = (time_sampling, time_loc, time_scale)

    def prepared(self, batch: GeneratorBatch, device: torch.device) -> GeneratorBatch:
        """Return the batch with what can be done before its step done: captions are encoded."""
        return replace(batch, condition=self._told(batch)).to(device)

    def forward(self, batch: GeneratorBatch, random: StepRandom, t: Tensor | None = None) -> Losses:
        """Return the batch mean "loss" and "segments".

        With times t (S, B), for a validation, the means "velocity" (S,) alone, no condition dropped.
        """
        tokens = batch.tokens.to(random.device, non_blocking=True).float()
        condition = self._told(batch) if batch.condition is None else batch.condition
        condition = condition.to(random.device)
        noise = random.normal(*tokens.shape[1:])
        drop = random.coins(self.generator.config.condition_dropout)
        losses = partial(self.generator.losses, tokens, condition, noise=noise)
        if t is not None:
            return {"velocity": torch.stack([losses(t=row, drop=torch.zeros_like(drop)).mean() for row in t])}
        times = random.times(*self._times)
        per_sample = losses(t=times, drop=drop)
        return {"loss": per_sample.mean(), "segments": by_segment(per_sample, times)}

    def _told(self, batch: GeneratorBatch) -> Condition:
        return self.conditioner.of(batch.captions, batch.labels)
