"""An objective over the processes of a training: alone, in copies (DDP), in shards (FSDP2), or both (HSDP).

Networks know nothing of it. What is applied from outside, in this order: recomputation and compilation of
every block, then the division among processes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from reptok.training.blocks import Backend, compile_blocks, recompute_blocks, trained_blocks
from reptok.training.config import PATIENT_SECONDS, CompileMode, Precision, Recompute, Strategy
from reptok.training.ema import EMA


class Alone:
    """One process with the whole model.

    Attributes:
        objective: Holds the trained weights under their own names.
        module: What a training step calls.
        rank: This process, in [0, world_size).
        world_size: Number of processes.
        shards: Number of processes that divide one copy of the weights: ranks [0, shards) the first copy.
        compiled: Whether the blocks of `module` are compiled, for the training alone.
    """

    rank, world_size, shards, compiled = 0, 1, 1, False

    def __init__(self, objective: nn.Module):
        self.objective = self.module = objective

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Surround one part of a step; gradients are exchanged after the `last` one at the latest."""
        return nullcontext()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        return values

    def of_one_copy(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over the processes that divide one copy of the weights."""
        return values

    def gathered(self, values: Tensor) -> Tensor:
        """Return the values of all processes, (world_size * n, ...), given each one's (n, ...)."""
        return values

    def shared(self, total: int, work: Callable[[np.ndarray], Tensor]) -> Tensor:
        """Let every process do an equal share of numbered pieces, and return what all gave, (total, ...).

        Where shares are not equal the last piece is done more than once: sharded weights want all processes
        to go along. `work` gets the numbers, int (n,), and returns (n, ...); all call this alike.
        """
        share = -(-total // self.world_size)
        mine = np.minimum(self.rank * share + np.arange(share), total - 1)
        return self.gathered(work(mine))[:total]

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
    def evaluating(self, ema: EMA) -> Iterator[nn.Module]:
        """Give every process what computes with averaged weights, in evaluation mode; all call it alike."""
        self.objective.eval()
        # Another mode, and batches of another size: each would be a compilation that serves a few calls.
        eager = torch.compiler.set_stance("force_eager") if self.compiled else nullcontext()
        try:
            with eager, ema.applied():
                yield self.objective
        finally:
            self.objective.train()

    @contextmanager
    def averaged(self, ema: EMA) -> Iterator[nn.Module | None]:
        """Give rank 0 the objective with averaged weights, in evaluation mode; all processes must enter."""
        with self.evaluating(ema) as objective:
            yield objective if self.rank == 0 else None


class Replicated(Alone):
    """A copy of the model in every process, the mean of whose gradients each one applies."""

    def __init__(self, objective: nn.Module, device: torch.device):
        super().__init__(objective)
        self.rank, self.world_size, self.device = dist.get_rank(), dist.get_world_size(), device
        self._step_timeout = PATIENT_SECONDS
        self._groups: list[dist.ProcessGroup | None] = [None]  # that meet in a step; None is all
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

    def gathered(self, values: Tensor) -> Tensor:
        found = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(found, values.contiguous())
        return torch.cat(found)

    def agreed(self, number: int) -> int:
        told = torch.tensor(number, device=self.device)
        dist.broadcast(told, 0)
        return int(told)

    def in_step(self, timeout_seconds: float) -> None:
        self._step_timeout = timeout_seconds
        self.agreed(0)  # the slowest has come this far
        self._give_up_after(timeout_seconds)

    @contextmanager
    def patient(self) -> Iterator[None]:
        self._give_up_after(PATIENT_SECONDS)
        yield
        self.in_step(self._step_timeout)

    def _give_up_after(self, seconds: float) -> None:
        for group in self._groups:
            dist.set_timeout(timedelta(seconds=seconds), group)


class Sharded(Replicated):
    """Every process holds some rows of each weight, and of its gradient, moments and average.

    Weights are gathered block by block while they are needed. Frozen weights stay whole. Rank 0 keeps a
    second, plain copy of what trains, for publication. Where there are several copies (HSDP), only the
    gradients of a process's own rows travel between them.
    """

    def __init__(
        self,
        objective: nn.Module,
        device: torch.device,
        plain: nn.Module | None,
        precision: Precision,
        shards: int,
    ):
        self._plain, self._precision, self.shards = plain, precision, shards
        super().__init__(objective, device)

    def _divide(self) -> nn.Module:
        copies, kind = self.world_size // self.shards, self.device.type
        if copies > 1:
            mesh = init_device_mesh(kind, (copies, self.shards), mesh_dim_names=("copies", "shards"))
            self._own_copy = mesh["shards"]
            self._groups += mesh.get_all_groups()
        else:
            mesh = self._own_copy = init_device_mesh(kind, (self.shards,))
        frozen = {parameter for parameter in self.objective.parameters() if not parameter.requires_grad}
        # Weights travel in the type that they are multiplied in; gradients are summed in float32.
        policy = (
            MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
            if self._precision == "bfloat16"
            else MixedPrecisionPolicy()
        )
        how: dict[str, Any] = {"mesh": mesh, "ignored_params": frozen, "mp_policy": policy}
        for block in trained_blocks(self.objective):
            if not getattr(block, "called_in_parts", False):  # what gathers weights is a block's own call
                fully_shard(block, **how)
        return fully_shard(self.objective, **how)

    def of_one_copy(self, values: Tensor) -> Tensor:
        result = values.clone()
        dist.all_reduce(result, group=self._own_copy.get_group())
        return result

    def accumulating(self, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(last)  # until then whole gradients are summed in each process
        return nullcontext()

    @contextmanager
    def evaluating(self, ema: EMA) -> Iterator[nn.Module]:
        with super().evaluating(ema):
            self.module.unshard()  # what is outside of blocks, whichever method is called
            yield self.module
            for part in self.module.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()  # without a backward pass nothing else lets go of it

    @contextmanager
    def averaged(self, ema: EMA) -> Iterator[nn.Module | None]:
        own = {n: p for n, p in self.objective.named_parameters() if p.requires_grad}
        targets = dict(self._plain.named_parameters()) if self._plain is not None else {}
        for name, part in ema.weights.items():
            whole = DTensor.from_local(
                part, self._own_copy, [Shard(0)], shape=own[name].shape, stride=own[name].stride()
            ).full_tensor()
            if targets:
                targets[name].data.copy_(whole)
        yield self._plain


def parallelize(
    objective: nn.Module,
    strategy: Strategy = "ddp",
    *,
    world_size: int = 1,
    shards: int = 0,
    device: torch.device | str = "cpu",
    compile: bool = False,
    compile_mode: CompileMode = "default",
    recompute: Recompute = "none",
    precision: Precision = "float32",
    backend: Backend = "inductor",
) -> Alone:
    """Prepare an objective for training in this process; several need a process group.

    Args:
        objective: On the device already, with the same weights in every process.
        strategy: "ddp" or "fsdp".
        world_size: Number of processes.
        shards: Of them, those that divide one copy under "fsdp", which is then kept `world_size / shards`
            times; 0 is all.
        device: Where this process computes.
        compile: Compile every block.
        compile_mode: Of torch.compile.
        recompute: What of every trained block the backward pass computes again.
        precision: Of matrix products; of weights on their way, too, where they are sharded.
        backend: Of torch.compile.

    Raises:
        ValueError: The processes cannot be divided into copies of so many.
    """
    if shards and world_size % shards:
        raise ValueError(
            f"train.shards {shards} does not divide the {world_size} processes that were started; start a "
            "multiple of it, or set it to 0"
        )
    sharded = world_size > 1 and strategy == "fsdp"
    plain = plain_copy(objective) if sharded and dist.get_rank() == 0 else None
    recompute_blocks(objective, recompute)
    if compile:
        compile_blocks(objective, backend, compile_mode)
    if sharded:
        result: Alone = Sharded(objective, torch.device(device), plain, precision, shards or world_size)
    else:
        result = Replicated(objective, torch.device(device)) if world_size > 1 else Alone(objective)
    result.compiled = compile
    return result


def plain_copy(objective: nn.Module) -> nn.Module:
    """Copy an objective's trained weights and structure; what is frozen is shared with the original."""
    frozen = [
        tensor for tensor in (*objective.parameters(), *objective.buffers()) if not tensor.requires_grad
    ]
    return copy.deepcopy(objective, {id(tensor): tensor for tensor in frozen}).eval()
