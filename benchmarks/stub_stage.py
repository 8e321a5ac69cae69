"""A shard job with next to no work: what is left to measure is the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.dag.fingerprint import insignificant
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.stage import Artifact, Stage, Workspace

ROWS = 7_000


@dataclass(frozen=True)
class StubJob(ShardJob):
    """Write one small file a shard; every hundredth row is dropped."""

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Write `{name}.txt`, which depends on the shard alone."""
        out.write_bytes(f"{shard.name}.txt", f"{shard.name} {shard.rows}\n".encode())
        return {"rows_in": shard.rows, "rows_out": shard.rows * 0.99, "dropped_stub": shard.rows * 0.01}


@dataclass(frozen=True, kw_only=True)
class StubConfig:
    """How many shards, and the workers that do them."""

    shards: int
    workers: WorkerResources = insignificant(factory=WorkerResources)


class StubStage(Stage):
    """A data stage of any number of shards."""

    name, output = "stub", "stubs"

    def __init__(self, config: StubConfig, number: int = 0):
        """Read what the stub of the number before makes."""
        super().__init__(config)
        self.name, self.output = f"stub_{number}", f"stubs_{number}"
        self.inputs = (f"stubs_{number - 1}",) if number else ()

    def run(self, inputs: Mapping[str, Artifact], out: Workspace) -> Mapping[str, float]:
        return map_shards(stub_shards(self.config.shards), StubJob(), out, self.config.workers)


def stub_shards(count: int) -> list[Shard]:
    """Shards of `ROWS` rows, with a payload like that of a data stage."""
    return [Shard(i, f"train-{i:05d}", ROWS, _payload(i)) for i in range(count)]


def _payload(number: int) -> dict[str, Any]:
    return {"shard": f"train-{number:05d}", "split": "train"}
