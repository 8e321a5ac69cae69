"""AdamW, its parameter groups, and the learning rate as a function of the step.

The paper trains with AdamW and 2,000 steps of linear warm-up (appendix A); warm-up matters for the
tokenizer, whose token projection ends in a LayerNorm of zeros, where the first gradients are large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reptok.training.config import OptimConfig


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


@dataclass
class _Group:
    """Parameters that share learning rate and decay, with their moments."""

    lr: float
    weight_decay: float
    names: list[str]
    parameters: list[nn.Parameter]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    steps: list[Tensor]


class AdamW:
    """Decoupled-decay Adam, one fused kernel call per parameter group.

    It calls the kernel behind torch.optim.AdamW(fused=True) directly: the state is then a plain table of
    named tensors, as a checkpoint wants it.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimConfig):
        """Group the parameters by decay and learning rate.

        Args:
            parameters: Name to parameter; "...encoder.embedding" is the `[cls]` embedding.
            config: Learning rate, moments and decay.

        Raises:
            ValueError: There is no parameter.
        """
        if not parameters:
            raise ValueError("nothing to train: no parameter requires gradients")
        self.config = config
        self._groups: dict[tuple[float, float], _Group] = {}
        for name, parameter in parameters.items():
            is_cls = name.endswith("encoder.embedding")
            is_matrix = parameter.ndim == 2 and not is_cls and "embed" not in name
            lr = config.lr * (config.cls_lr_scale if is_cls else 1.0)
            decay = config.weight_decay if is_matrix else 0.0
            group = self._groups.setdefault((lr, decay), _Group(lr, decay, [], [], [], [], []))
            group.names.append(name)
            group.parameters.append(parameter)
            group.exp_avg.append(torch.zeros_like(parameter))
            group.exp_avg_sq.append(torch.zeros_like(parameter))
            group.steps.append(torch.zeros((), device=parameter.device))

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        """Update every parameter from its gradient; `lr_factor` scales all learning rates."""
        for group in self._groups.values():
            gradients = [
                torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                for parameter in group.parameters
            ]
            torch._foreach_add_(group.steps, 1)
            torch._fused_adamw_(
                list(group.parameters),
                gradients,
                group.exp_avg,
                group.exp_avg_sq,
                [],
                group.steps,
                lr=group.lr * lr_factor,
                beta1=self.config.beta1,
                beta2=self.config.beta2,
                weight_decay=group.weight_decay,
                eps=self.config.eps,
                amsgrad=False,
                maximize=False,
            )

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self._groups.values():
            for parameter in group.parameters:
                parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments by name, `{exp_avg, exp_avg_sq, steps}/{parameter}`; not copies."""
        return {
            f"{moment}/{name}": tensor
            for group in self._groups.values()
            for moment in ("exp_avg", "exp_avg_sq", "steps")
            for name, tensor in zip(group.names, getattr(group, moment), strict=True)
        }


def clip_gradients(parameters: list[nn.Parameter], max_norm: float) -> Tensor:
    """Scale gradients down to a total norm of `max_norm` (0: leave them) and return the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients, foreach=True)
    if max_norm > 0:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm, foreach=True)
    return norm
