"""AdamW, its parameter groups, and the learning rate as a function of the step.

The paper trains with AdamW and 2,000 steps of linear warm-up (appendix A); warm-up matters for the
tokenizer, whose token projection ends in a LayerNorm of zeros, where the first gradients are large.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reptok.training.config import OptimConfig
from reptok.training.sharding import local


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
    begins = total_steps - config.decay_steps if config.schedule == "wsd" else config.warmup_steps
    done = min(1.0, max(0.0, (step - begins) / max(1, total_steps - begins)))
    left = 0.5 * (1 + math.cos(math.pi * done)) if config.schedule == "cosine" else 1 - done
    return config.final_lr + (1 - config.final_lr) * left


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

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], config: OptimConfig, roles: Mapping[str, Role]
    ):
        """Group the parameters by decay and learning rate.

        Args:
            parameters: Name to parameter.
            config: Learning rate, moments and decay.
            roles: Of each by its name; see `roles_of`.

        Raises:
            ValueError: There is no parameter.
        """
        if not parameters:
            raise ValueError("nothing to train: no parameter requires gradients")
        self.config = config
        self._groups: dict[tuple[float, float], _Group] = {}
        for name, parameter in parameters.items():
            lr, decay = roles[name].group(config)
            group = self._groups.setdefault((lr, decay), _Group(lr, decay, [], [], [], [], []))
            group.names.append(name)
            group.parameters.append(parameter)
            group.exp_avg.append(torch.zeros_like(local(parameter)))
            group.exp_avg_sq.append(torch.zeros_like(local(parameter)))
        for group in self._groups.values():  # all of a group's parameters have made the same steps
            group.steps = [torch.zeros((), device=group.parameters[0].device)] * len(group.names)

    @torch.no_grad()
    def step(
        self, lr_factor: float | Tensor, *, scale: Tensor | None = None, skipped: Tensor | None = None
    ) -> None:
        """Update every parameter from its gradient; nothing waits for the device.

        Args:
            lr_factor: Scales all learning rates; a scalar on the device where the update is recorded once
                and run with other factors.
            scale: Scalar on the device that all gradients are divided by, within the update's own pass.
            skipped: Scalar on the device; 1.0 leaves everything as it is.
        """
        for group in self._groups.values():
            parameters = [local(parameter) for parameter in group.parameters]
            gradients = [
                torch.zeros_like(mine) if parameter.grad is None else local(parameter.grad)
                for mine, parameter in zip(parameters, group.parameters, strict=True)
            ]
            group.steps[0].add_(1)
            torch._fused_adamw_(
                parameters,
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
                grad_scale=scale,
                found_inf=skipped,
            )
            if skipped is not None:
                group.steps[0].sub_(skipped)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self._groups.values():
            for parameter in group.parameters:
                parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """Return the moments by name, `{exp_avg, exp_avg_sq}/{parameter}`; not copies.

        They are this process's rows, like its weights. `steps/{parameter}` is the scalar that all
        parameters of a group share, under the name of its first.
        """
        moments = {
            f"{moment}/{name}": tensor
            for group in self._groups.values()
            for moment in ("exp_avg", "exp_avg_sq")
            for name, tensor in zip(group.names, getattr(group, moment), strict=True)
        }
        steps = {f"steps/{group.names[0]}": group.steps[0] for group in self._groups.values()}
        return {**moments, **steps}


@dataclass(frozen=True)
class Role:
    """How a parameter is updated.

    Attributes:
        lr: Which factor of `OptimConfig` its learning rate has: "cls", "mapping", or none.
        decays: Whether weight decay pulls at it.
    """

    lr: str = ""
    decays: bool = True

    def group(self, config: OptimConfig) -> tuple[float, float]:
        """Learning rate and weight decay."""
        scale = {"": 1.0, "cls": config.cls_lr_scale, "mapping": config.mapping_lr_scale}[self.lr]
        return config.lr * scale, config.weight_decay if self.decays else 0.0


def roles_of(model: nn.Module) -> dict[str, Role]:
    """The role of every parameter, by its name in `model`.

    Modules say which learning rate is theirs: a class attribute `lr_roles` gives it for some of their own
    parameters by name, or by "" for all at and below them. Weights of linear maps and convolutions decay;
    what a module holds itself does not: embeddings, positions, learned tokens, scales, offsets, biases.
    """
    roles, below = {}, {"": ""}
    for path, module in model.named_modules():
        declared = getattr(type(module), "lr_roles", {})
        below[path] = declared.get("", below[path.rpartition(".")[0]] if path else "")
        for name, _ in module.named_parameters(recurse=False):
            decays = isinstance(module, nn.Linear | nn.Conv2d) and name == "weight"
            roles[f"{path}.{name}" if path else name] = Role(declared.get(name, below[path]), decays)
    return roles


def gradient_norm(parameters: list[nn.Parameter], total: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return the norm of all gradients together, a scalar on the device.

    Args:
        parameters: Whose gradients; of a sharded one this process's rows are looked at.
        total: Sums squared norms over the processes of one copy, where each has its own rows.
    """
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if total is not None:
        norm = total(norm.square()).sqrt()
    return norm


def clip_scale(norm: Tensor, max_norm: float) -> Tensor | None:
    """Return what gradients of that norm are divided by so that it is at most `max_norm`; None for 0."""
    return ((norm + 1e-6) / max_norm).clamp(min=1.0) if max_norm > 0 else None
