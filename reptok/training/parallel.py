"""An objective spread over the processes of a training: alone, replicated (DDP) or sharded (FSDP2).

Networks know nothing of it. What is applied from outside, in this order: recomputation and compilation of
every block, then the division among processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from reptok.generator.text import TextContext
from reptok.training.config import PATIENT_SECONDS, Precision, Strategy
from reptok.training.ema import EMA

Backend = str | Callable[..., Any]


class Alone:
    """One process with the whole model.

    Attributes:
        objective: Holds the trained weights under their own names.
        module: What a training step calls.
        rank: This process, in [0, world_size).
        world_size: Number of processes.
        compiled: Whether the blocks of `module` are compiled, for the training alone.
    """

    rank, world_size, compiled = 0, 1, False

    def __init__(self, objective: nn.Module):
        self.objective = self.module = objective

    @property
    def sharded(self) -> bool:
        """Whether this process holds only some rows of the weights."""
        return False

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Surround one part of a step; gradients are exchanged after the `last` one at the latest."""
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        return values

    def agreed(self, number: int) -> int:
        """Return the number that rank 0 has."""
        return number

    def in_step(self, timeout_seconds: float) -> None:
        """From here on processes that meet in a step give up after so long; a start may take longer."""

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Surround work that takes some processes longer than others; they go on together."""
        yield

    @contextmanager
    def averaged(self, ema: EMA) -> Iterator[nn.Module | None]:
        """Give rank 0 the objective with averaged weights, in evaluation mode; all processes must enter."""
        self.objective.eval()
        # Another mode, and batches of another size: each would be a compilation that serves a few calls.
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        try:
            with eager, ema.applied():
                yield self.objective if self.rank == 0 else None
        finally:
            self.objective.train()


class Replicated(Alone):
    """A copy of the model in every process, the mean of whose gradients each one applies."""

    def __init__(self, objective: nn.Module, device: torch.device):
        super().__init__(objective)
        self.rank, self.world_size, self.device = dist.get_rank(), dist.get_world_size(), device
        self._step_timeout = PATIENT_SECONDS
        for tensor in (*objective.parameters(), *objective.buffers()):
            dist.broadcast(tensor.detach(), 0)  # random numbers may have been drawn differently
        self.module = self._divide()

    def _divide(self) -> nn.Module:
        # A gradient lies where it is exchanged: no copy into buckets and back.
        return DistributedDataParallel(self.objective, broadcast_buffers=False, gradient_as_bucket_view=True)

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(self.module, DistributedDataParallel)
        return nullcontext() if last else self.module.no_sync()

    def total(self, values: Tensor) -> Tensor:
        result = values.clone()
        dist.all_reduce(result)
        return result

    def agreed(self, number: int) -> int:
        told = torch.tensor(number, device=self.device)
        dist.broadcast(told, 0)
        return int(told)

    def in_step(self, timeout_seconds: float) -> None:
        self._step_timeout = timeout_seconds
        self.agreed(0)  # the slowest has come this far
        dist.set_timeout(timedelta(seconds=timeout_seconds))

    @contextmanager
    def patient(self) -> Iterator[None]:
        dist.set_timeout(timedelta(seconds=PATIENT_SECONDS))
        yield
        self.in_step(self._step_timeout)


class Sharded(Replicated):
    """Every process holds some rows of each weight, and of its gradient, moments and average.

    Weights are gathered block by block while they are needed. Frozen weights stay whole. Rank 0 keeps a
    second, plain copy of what trains, for evaluation and publication.
    """

    def __init__(
        self, objective: nn.Module, device: torch.device, plain: nn.Module | None, precision: Precision
    ):
        self._plain, self._precision = plain, precision
        super().__init__(objective, device)

    def _divide(self) -> nn.Module:
        self._mesh = init_device_mesh(self.device.type, (self.world_size,))
        frozen = {parameter for parameter in self.objective.parameters() if not parameter.requires_grad}
        # Weights travel in the type that they are multiplied in; gradients are summed in float32.
        policy = (
            MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
            if self._precision == "bfloat16"
            else MixedPrecisionPolicy()
        )
        how: dict[str, Any] = {"mesh": self._mesh, "ignored_params": frozen, "mp_policy": policy}
        for block in trained_blocks(self.objective):
            if not getattr(block, "called_in_parts", False):  # what gathers weights is a block's own call
                fully_shard(block, **how)
        return fully_shard(self.objective, **how)

    @property
    def sharded(self) -> bool:
        return True

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(last)  # until then whole gradients are summed in each process
        return nullcontext()

    @contextmanager
    def averaged(self, ema: EMA) -> Iterator[nn.Module | None]:
        own = {n: p for n, p in self.objective.named_parameters() if p.requires_grad}
        targets = dict(self._plain.named_parameters()) if self._plain is not None else {}
        for name, part in ema.weights.items():
            whole = DTensor.from_local(
                part, self._mesh, [Shard(0)], shape=own[name].shape, stride=own[name].stride()
            ).full_tensor()
            if targets:
                targets[name].data.copy_(whole)
        yield self._plain


def parallelize(
    objective: nn.Module,
    strategy: Strategy = "ddp",
    *,
    world_size: int = 1,
    device: torch.device | str = "cpu",
    compile: bool = False,
    recompute: bool = False,
    precision: Precision = "float32",
    backend: Backend = "inductor",
) -> Alone:
    """Prepare an objective for training in this process; several need a process group.

    Args:
        objective: On the device already, with the same weights in every process.
        strategy: "ddp" or "fsdp".
        world_size: Number of processes.
        device: Where this process computes.
        compile: Compile every block.
        recompute: Run every trained block again in the backward pass instead of keeping its activations.
        precision: Of matrix products; of weights on their way, too, where they are sharded.
        backend: Of torch.compile.
    """
    sharded = world_size > 1 and strategy == "fsdp"
    plain = plain_copy(objective) if sharded and dist.get_rank() == 0 else None
    for block in trained_blocks(objective) if recompute else ():
        block.forward = recomputed(block.forward)  # type: ignore[method-assign]
    if compile:
        compile_blocks(objective, backend)
    if sharded:
        result: Alone = Sharded(objective, torch.device(device), plain, precision)
    else:
        result = Replicated(objective, torch.device(device)) if world_size > 1 else Alone(objective)
    result.compiled = compile
    return result


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


def compile_blocks(model: nn.Module, backend: Backend = "inductor") -> None:
    """Compile every block on its own: one short compilation serves all of a stack."""
    # A block's gradients are ready together: to cut its graph where a bucket of DDP ends gains nothing.
    torch._dynamo.config.optimize_ddp = False
    for block in blocks(model):
        compiled = torch.compile(block.forward, backend=backend)
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


def recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function that keeps its inputs alone and runs again in the backward pass."""

    def run(*inputs: Any) -> Tensor:
        result: Tensor = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result

    return run


def plain_copy(objective: nn.Module) -> nn.Module:
    """Copy an objective's trained weights and structure; what is frozen is shared with the original."""
    frozen = [
        tensor for tensor in (*objective.parameters(), *objective.buffers()) if not tensor.requires_grad
    ]
    return copy.deepcopy(objective, {id(tensor): tensor for tensor in frozen}).eval()
