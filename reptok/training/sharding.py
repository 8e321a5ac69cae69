"""This process's share of a tensor: its rows where FSDP divided it, all of it otherwise.

Optimiser and average work element by element, so on the local rows alone; only norms and checkpoints need
to know which rows they are.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.distributed.tensor import DTensor


class Rows(NamedTuple):
    """Rows [start, stop) out of `total` along the first axis."""

    start: int
    stop: int
    total: int


def local(tensor: Tensor) -> Tensor:
    """Return this process's part, sharing memory with `tensor`; a tensor that is not sharded is its own."""
    return tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor


def rows(tensor: Tensor) -> Rows | None:
    """Tell which rows `local` returns; None for a tensor that is not sharded.

    Raises:
        ValueError: The tensor is not sharded by rows, over one group of processes in each of its copies.
    """
    if not isinstance(tensor, DTensor):
        return None
    *copies, divided = tensor.placements
    if not divided.is_shard(0) or not all(placement.is_replicate() for placement in copies):
        raise ValueError(f"expected rows divided over the last axis of a mesh, got {tensor.placements}")
    axis = tensor.device_mesh.ndim - 1
    total, rank = tensor.shape[0], tensor.device_mesh.get_local_rank(axis)
    size = -(-total // tensor.device_mesh.size(axis))
    return Rows(min(rank * size, total), min((rank + 1) * size, total), total)
