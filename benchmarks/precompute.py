"""C6: latents and frozen tokens of a dataset, by the stage under Ray Data against a plain loop of torch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.compare import Comparison
from pipelines.dag import cluster
from pipelines.dag.artifact import Artifact
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.shards import Shard, ShardJob, WorkerResources, map_shards
from pipelines.dag.workspace import Workspace
from pipelines.encoding.device import ComputeConfig
from pipelines.encoding.latents import EncodeLatents
from pipelines.stages.dataset import (
    DatasetShardWriter,
    dataset_shards,
    image_batches,
    read_index,
    write_index,
)
from pipelines.stages.encode_latents import EncodeLatentsConfig, LatentsJob
from reptok.configs import AutoencoderConfig, EncoderConfig
from reptok.data.blocks import BlockWriter, iterate_blocks
from reptok.data.images import encode_jpeg
from reptok.data.index import shard_name
from reptok.data.shards import Sample

ZOO = Path(__file__).resolve().parents[1] / "zoo"
SIZE, PER_SHARD, FEW, MANY, PAIRS = 64, 64, 2, 10, 3


def run() -> Comparison:
    """CPU-seconds at two sizes; the difference is the work, without anybody's start."""
    config = EncodeLatentsConfig(
        vae=AutoencoderConfig(path=str(ZOO / "autoencoder")),
        encoder=EncoderConfig(name="folder", path=str(ZOO / "encoder"), image_size=SIZE),
        compute=ComputeConfig(batch_size=32),
    )
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_dataset(f"{folder}/{shards}", shards) for shards in (FEW, MANY))
        op = EncodeLatents(config.vae, config.encoder, config.compute)
        op.setup()
        cluster.configure(ClusterConfig(num_cpus=2))
        cluster.ensure()
        try:
            _stage(few, config, f"{folder}/stage")
            _loop(few, op, f"{folder}/loop")
            _check_equal(f"{folder}/stage", f"{folder}/loop")
            times = []
            for pair in range(PAIRS):
                ours, theirs = [], []
                for data in (few, many):
                    ours.append(_stage_seconds(data, config, f"{folder}/{pair}-{data.fingerprint}"))
                    begun = time.process_time()
                    _loop(data, op, f"{folder}/loop")
                    theirs.append(time.process_time() - begun)
                times.append((ours[1] - ours[0], theirs[1] - theirs[0]))
        finally:
            cluster.shutdown()
    mine, other = (median(side) for side in zip(*times, strict=True))
    return Comparison(
        name=f"C6 latents and frozen tokens of {(MANY - FEW) * PER_SHARD} images of {SIZE} px",
        ours=mine,
        peer="plain torch loop",
        theirs=other,
        ratio=median(b / a for a, b in times),
        checked="goal 0.93, stretch 0.98; equal blocks; marginal: worker, driver and Ray's own",
    )


def _dataset(url: str, shards: int) -> Artifact:
    out = Workspace(url)
    random = np.random.default_rng(0)
    names = [shard_name("train", shard) for shard in range(shards)]
    for shard, name in enumerate(names):
        with DatasetShardWriter(out, name) as writer:
            for row in range(PER_SHARD):
                small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                pixels = small.repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)
                info = {"width": SIZE, "height": SIZE}
                writer.add(Sample(f"{shard * PER_SHARD + row:012d}", encode_jpeg(pixels), "", info))
    write_index(out, names, SIZE)
    out.publish({"stage": "bench"})
    return Artifact("dataset", url.rpartition("/")[2], out.url)


@dataclass(frozen=True)
class Timed(ShardJob):
    """A job that counts the CPU-seconds of its process, shard by shard."""

    job: LatentsJob

    def setup(self) -> None:
        """Load the networks; that is not counted."""
        self.job.setup()

    def rows_of(self, shard: Shard) -> int:
        """Count the shard's samples."""
        return self.job.rows_of(shard)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Do the shard and add `cpu_seconds` to its stats."""
        begun = time.process_time()
        stats = self.job(shard, out)
        return {**stats, "cpu_seconds": time.process_time() - begun}


def _stage(dataset: Artifact, config: EncodeLatentsConfig, url: str) -> dict[str, float]:
    index = read_index(dataset)
    job = Timed(LatentsJob(dataset, index.image_size, {}, config))
    return map_shards(dataset_shards(dataset), job, Workspace(url), WorkerResources(workers=1, cpus=1))


def _loop(dataset: Artifact, op: EncodeLatents, url: str) -> None:
    """What anybody would write: decode, encode, write, one shard after the other."""
    index = read_index(dataset)
    Path(url).mkdir(exist_ok=True)
    for shard in dataset_shards(dataset):
        with Path(url, f"{shard.name}.tar").open("wb") as file:
            blocks = BlockWriter(file)
            for keys, images in image_batches(dataset, shard.name, index.image_size, op.compute.batch_size):
                batch = op({"image": images})
                blocks.add(keys, {column: batch[column] for column in op.writes})
            blocks.close()


def _check_equal(stage: str, loop: str) -> None:
    for path in sorted(Path(loop).glob("*.tar")):
        pairs = zip(iterate_blocks(path), iterate_blocks(Path(stage, path.name)), strict=True)
        if not all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a):
            raise RuntimeError(f"the stage and the loop differ in {path.name}")


def _stage_seconds(dataset: Artifact, config: EncodeLatentsConfig, url: str) -> float:
    """CPU-seconds of a run: of the driver and Ray's own processes, and what the worker spent on shards."""
    before = _lasting()
    stats = _stage(dataset, config, url)
    after = _lasting()
    return stats["cpu_seconds"] + sum(after[pid] - before[pid] for pid in before.keys() & after.keys())


def _lasting() -> dict[int, float]:
    """CPU-seconds by process, of this one and all below it that are no workers: those come and go."""
    found = {}
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            if not process.name().startswith("ray::"):
                used = process.cpu_times()
                found[process.pid] = used.user + used.system
        except psutil.Error:
            continue
    return found
