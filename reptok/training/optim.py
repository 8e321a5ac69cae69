"""AdamW, its parameter groups, and the learning rate as a function of the step.

The paper trains with AdamW and 2,000 steps of linear warm-up (appendix A); warm-up matters for the
tokenizer, whose token projection ends in a LayerNorm of zeros, where the first gradients are large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights follow gradients.

    Attributes:
        lr: Learning rate after the warm-up.
        beta1: Decay of AdamW's first moment.
        beta2: Decay of AdamW's second moment.
        eps: AdamW's epsilon.
        weight_decay: Decoupled decay, of matrices alone (no norms, biases, embeddings).
        warmup_steps: Steps over which the learning rate rises linearly.
        schedule: "constant" after the warm-up, or "cosine" down to `final_lr` at the last step.
        final_lr: Where cosine ends, as a fraction of `lr`.
        grad_clip: Largest gradient norm; 0 clips nothing.
        cls_lr_scale: Factor on the learning rate of the `[cls]` embedding.
    """

    lr: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup_steps: int = 2000
    schedule: Literal["constant", "cosine"] = "constant"
    final_lr: float = 0.0
    grad_clip: float = 1.0
    cls_lr_scale: float = 1.0


def lr_factor(step: int, total_steps: int, config: OptimConfig) -> float:
    """Return the factor on the learning rate at a step.

    Args:
        step: 0 for the first update.
        total_steps: Updates of the whole training.
        config: Warm-up and schedule.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def build_optimizer(parameters: Iterable[tuple[str, nn.Parameter]], config: OptimConfig) -> torch.optim.AdamW:
    """Make a fused AdamW over the parameters that require gradients.

    Args:
        parameters: Names and parameters; a name that ends in "encoder.embedding" is the `[cls]` embedding.
        config: Learning rate, moments and decay.

    Raises:
        ValueError: No parameter requires gradients.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_cls = name.endswith("encoder.embedding")
            is_matrix = parameter.ndim == 2 and not is_cls and "embed" not in name
            key = (config.cls_lr_scale if is_cls else 1.0, config.weight_decay if is_matrix else 0.0)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("nothing to train: no parameter requires gradients")
    described: list[dict[str, Any]] = [
        {"params": members, "lr": config.lr * scale, "weight_decay": decay, "base_lr": config.lr * scale}
        for (scale, decay), members in groups.items()
    ]
    return torch.optim.AdamW(described, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate from its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a total norm of `max_norm` (0: leave them) and return the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if max_norm > 0:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)
    return norm
