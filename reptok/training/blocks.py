"""The blocks of a network's stacks: which gradients pass through, compiled and recomputed from outside."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from reptok.generator.text import TextContext
from reptok.training.config import CompileMode, Recompute

Backend = str | Callable[..., Any]

_aten = torch.ops.aten
COSTLY = (
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.baddbmm.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
)
"""What selective recomputation keeps."""


def blocks(model: nn.Module, within: bool = False) -> list[nn.Module]:
    """Return the blocks of the model's stacks that gradients pass through.

    Those are all with trained weights, and those of a frozen network (`within`) that stands beside a trained
    weight of the same module, as the encoder's transformer does; the VAE is none of them.
    """
    if isinstance(model, (nn.ModuleList, nn.Sequential)) and len({type(block) for block in model}) == 1:
        return list(model)
    within = within or any(parameter.requires_grad for parameter in model.parameters(recurse=False))
    passed = [part for part in model.children() if within or any(p.requires_grad for p in part.parameters())]
    return [block for part in passed for block in blocks(part, within)]


def trained_blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks that have trained weights."""
    return [block for block in blocks(model) if any(p.requires_grad for p in block.parameters())]


def compile_blocks(model: nn.Module, backend: Backend = "inductor", mode: CompileMode = "default") -> None:
    """Compile every block on its own: one short compilation serves all of a stack."""
    # A block's gradients are ready together: to cut its graph where a bucket of DDP ends gains nothing.
    torch._dynamo.config.optimize_ddp = False
    how: dict[str, Any] = {} if mode == "default" else {"mode": mode}
    for block in blocks(model):
        compiled = torch.compile(block.forward, backend=backend, **how)
        block.forward = of_any_length(compiled)  # type: ignore[method-assign]


def of_any_length(compiled: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a compiled block that serves captions of all lengths with one graph, from the first on."""

    def run(x: Tensor, *conditions: Any) -> Tensor:
        for condition in conditions:
            if isinstance(condition, TextContext):
                torch._dynamo.maybe_mark_dynamic(condition.states, 1)
                torch._dynamo.maybe_mark_dynamic(condition.mask, 3)
        return compiled(x, *conditions)

    return run


def recompute_blocks(model: nn.Module, what: Recompute) -> None:
    """Let the backward pass compute the trained blocks again, whole or but for `COSTLY`."""
    if what == "none":
        return
    for block in trained_blocks(model):
        block.forward = recomputed(block.forward, what)  # type: ignore[method-assign]


def recomputed(forward: Callable[..., Tensor], what: Recompute) -> Callable[..., Tensor]:
    """Return the function that keeps its inputs, and what `what` says, and runs again for the rest."""
    how: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if what == "selective":
        how["context_fn"] = partial(create_selective_checkpoint_contexts, list(COSTLY))

    def run(*inputs: Any) -> Tensor:
        result: Tensor = checkpoint(forward, *inputs, **how)
        return result

    return run
