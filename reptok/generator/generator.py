"""The second stage: a flow that samples tokens (paper, section 3.3).

Its space is that of normalised tokens (`token_stats`); raw tokens enter :meth:`TokenGenerator.losses`
and leave :meth:`TokenGenerator.sample`. B batch, K tokens per image, D token width; t = 0 noise, t = 1
data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reptok.configs import GeneratorConfig
from reptok.flow.guidance import guide, is_guided
from reptok.flow.loss import velocity_loss
from reptok.flow.noise import expand_seed, noise_from_seeds
from reptok.flow.path import PATHS
from reptok.flow.sample import sample
from reptok.flow.solver import Solver
from reptok.flow.time import sample_uniform
from reptok.generator.conditioner import CONDITIONERS
from reptok.generator.conditioning import ClassEmbedding, Condition, TimeEmbedding
from reptok.generator.mixer import Mixer
from reptok.generator.text import TextContext, TextProjection
from reptok.generator.token_stats import TokenStats
from reptok.generator.transformer import Transformer

TOKEN_NOISE_STREAM = 1  # a seed's token noise is independent of its latent noise


class TokenGenerator(nn.Module):
    """Velocity network, its condition and its sampler."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        is_mixer = config.kind == "mixer"
        embed_dim = config.token_dim if is_mixer else config.dim
        self.reads = reads = CONDITIONERS[config.condition]
        text = reads.reads_text
        self.stats = TokenStats(config.token_dim, whitened=config.whiten)
        self.time = TimeEmbedding(embed_dim)
        self.classes = ClassEmbedding(config.num_classes, embed_dim) if reads.reads_classes else None
        self.text = TextProjection(config.text_dim, config.dim) if text else None
        if is_mixer:
            self.position = nn.Parameter(torch.randn(config.num_tokens, config.token_dim))
            learned = torch.randn(config.num_learnable_tokens, config.token_dim) * 0.02
            self.learned_tokens = nn.Parameter(learned) if text else None
            self.network: nn.Module = Mixer(
                token_dim=config.token_dim,
                num_tokens=config.sequence_length,
                dim=config.dim,
                depth=config.depth,
                tokens_mlp_dim=config.tokens_mlp_dim,
                channels_mlp_dim=config.channels_mlp_dim,
                text_heads=config.heads if text else 0,
            )
        else:
            self.network = Transformer(
                token_dim=config.token_dim,
                num_tokens=config.num_tokens,
                dim=config.dim,
                depth=config.depth,
                heads=config.heads,
                ff=config.channels_mlp_dim,
                with_text=text,
            )

    @property
    def is_conditional(self) -> bool:
        """Whether it can be told something, and guided by it."""
        return self.reads.reads_classes or self.reads.reads_text

    def set_token_stats(self, mean: Tensor, std: Tensor, covariance: Tensor | None = None) -> None:
        """Set the training set's mean and standard deviation (D,) of raw tokens; see `TokenStats.set`."""
        self.stats.set(mean, std, covariance)

    def velocity(self, x_t: Tensor, t: Tensor, condition: Condition | Tensor | None = None) -> Tensor:
        """Velocity (B, K, D) of normalised tokens ``x_t`` of that shape at times (B,); a tensor is labels."""
        condition = Condition.of(condition)
        return self._velocity(x_t, t, condition, self._context(condition, len(x_t)))

    def _context(self, condition: Condition, batch: int) -> TextContext | None:
        """The projected text, the same at all times of a trajectory."""
        return None if self.text is None else self.text(condition, batch)

    def _velocity(self, x_t: Tensor, t: Tensor, condition: Condition, context: TextContext | None) -> Tensor:
        if tuple(x_t.shape[1:]) != (self.config.num_tokens, self.config.token_dim):
            raise ValueError(
                f"tokens must be (B, {self.config.num_tokens}, {self.config.token_dim}), "
                f"got {tuple(x_t.shape)}"
            )
        time = self.time(t)
        label = None if self.classes is None else self.classes(condition, len(x_t))
        if self.config.kind == "transformer":
            return self.network(x_t, time if label is None else time + label, context)
        parts = [x_t + self.position]
        if self.learned_tokens is not None:
            parts.insert(0, self.learned_tokens.expand(len(x_t), -1, -1))
        elif self.config.num_extra_tokens:
            parts.insert(0, self._extra(condition))
        if label is not None:
            parts.append(label[:, None])
        start = self.config.num_leading_tokens
        return self.network(torch.cat(parts, dim=1), time, context)[:, start : start + self.config.num_tokens]

    def _extra(self, condition: Condition) -> Tensor:
        wanted = (self.config.num_extra_tokens, self.config.token_dim)
        if condition.extra is None or tuple(condition.extra.shape[1:]) != wanted:
            raise ValueError(
                f"this generator needs Condition(extra=...) of shape (B, {wanted[0]}, {wanted[1]})"
            )
        return condition.extra

    def losses(
        self,
        tokens: Tensor,
        condition: Condition | Tensor | None = None,
        *,
        noise: Tensor | None = None,
        t: Tensor | None = None,
        drop: Tensor | None = None,
    ) -> Tensor:
        """Per-sample flow-matching losses (B,) of raw tokens (B, D) or (B, K, D).

        Args:
            tokens: Raw tokens.
            condition: Of the same batch; a tensor is labels.
            noise: Standard normal (B, K, D).
            t: Times (B,); otherwise uniform.
            drop: (B,) bool, samples made unconditional; drawn with ``condition_dropout`` in training mode,
                none in evaluation mode.
        """
        x_1 = self.stats.normalize(tokens[:, None] if tokens.ndim == 2 else tokens)
        condition = Condition.of(condition)
        if t is None:
            t = sample_uniform(len(x_1), device=x_1.device)
        if noise is None:
            noise = torch.randn_like(x_1)
        if drop is None and self.training and self.is_conditional:
            drop = torch.rand(len(x_1), device=x_1.device) < self.config.condition_dropout
        if drop is not None:
            condition = condition.drop(drop)
        point = PATHS[self.config.path].sample(noise, x_1, t)
        return velocity_loss(self.velocity(point.x_t, t, condition), point.v_t)

    forward = losses  # what a data-parallel wrapper calls

    @torch.no_grad()
    def sample(
        self,
        condition: Condition | Tensor | None = None,
        *,
        noise: Tensor | None = None,
        num_steps: int | Sequence[float] = 50,
        cfg_scale: float = 1.0,
        guidance_interval: tuple[float, float] | None = (0.3, 0.9),
        solver: str | Solver = "euler",
        seeds: int | Sequence[int] = 0,
        num_samples: int | None = None,
        return_intermediates: bool = False,
    ) -> Tensor:
        """Sample raw tokens (B, K, D).

        Args:
            condition: One per sample, a tensor is labels; None for an unconditional model.
            noise: Starting noise (B, K, D); without it ``seeds`` decide.
            num_steps: Steps of the solver, or its times.
            cfg_scale: Guidance; 1 is the conditional prediction and costs one network evaluation a step.
            guidance_interval: Times, both ends included, at which guidance acts; None means all.
            solver: A name of ``reptok.flow.solver.SOLVERS`` ("euler", "heun", "sde", ...), or a solver.
            seeds: One per sample, or s for s, s + 1, ...
            num_samples: Batch size when there is neither condition nor noise.
            return_intermediates: Return the whole walk, (S + 1, B, K, D), the noise first, all denormalised.

        Raises:
            ValueError: The guidance is no finite number.
        """
        condition = Condition.of(condition)
        if noise is None:
            num = num_samples if num_samples is not None else len(condition)
            shape = (self.config.num_tokens, self.config.token_dim)
            noise = noise_from_seeds(expand_seed(seeds, num), shape, stream=TOKEN_NOISE_STREAM)
        noise = noise.to(device=self.stats.mean.device, dtype=self.stats.mean.dtype)
        condition = condition.to(noise.device)
        plain = self._context(condition, len(noise))
        if not math.isfinite(cfg_scale):
            raise ValueError(f"guidance must be a finite number, not {cfg_scale}")
        is_plain = cfg_scale == 1.0 or not self.is_conditional
        both = condition if is_plain else Condition.concat(Condition.null(condition), condition)
        doubled = plain if is_plain else self._context(both, 2 * len(noise))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            if is_plain or not is_guided(t[0], guidance_interval):
                return self._velocity(x, t, condition, plain)
            v = self._velocity(torch.cat([x, x]), torch.cat([t, t]), both, doubled)
            unconditional, conditional = v.chunk(2)
            return guide(conditional, unconditional, cfg_scale)

        tokens = sample(
            velocity, noise, num_steps=num_steps, solver=solver, seeds=seeds, stream=TOKEN_NOISE_STREAM,
            path=PATHS[self.config.path], return_intermediates=return_intermediates,
        )  # fmt: skip
        return self.stats.denormalize(tokens)
