"""How the processes of a training find each other; where they share a machine, without a door to others.

Torch's own store listens on every address and asks nobody who he is. On one machine a file that only this
user can read takes its place, and what gloo and NCCL listen on is bound to loopback. Among several machines
it is torch's store: only the cluster's network may reach them (docs/security.md).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import (
    _set_torch_distributed_env_vars,
    _setup_torch_process_group,
    _TorchBackend,
)

from reptok.training.place import stay_on_loopback


@dataclass
class PrivateTorchConfig(TorchConfig):
    """Ray Train's process group, private where it can be."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _PrivateBackend


class _PrivateBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        nodes = set(worker_group.execute(_node_id))
        if len(nodes) > 1:
            super().on_start(worker_group, backend_config)
            return
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        place = worker_group.execute_single(0, _private_file)
        worker_group.execute(stay_on_loopback)
        worker_group.execute(_set_torch_distributed_env_vars)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _setup_torch_process_group,
                    backend=backend_config.backend or ("nccl" if gpus else "gloo"),
                    world_rank=rank,
                    world_size=len(worker_group),
                    init_method=f"file://{place}",
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(len(worker_group))
            ]
        )


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _private_file() -> str:
    """A name in a folder of mode 0700 that goes with Ray's session."""
    session = ray._private.worker.global_worker.node.get_session_dir_path()
    return str(Path(tempfile.mkdtemp(prefix="rendezvous-", dir=session), "store"))
