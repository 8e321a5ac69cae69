"""C19: so many samples scored against 10,000 real images: memory of each stage, and its time per 1,000.

    python -m benchmarks.scoring [IMAGES]       50,000 by default; about ten minutes of two slow cores

The samples are noise of 32 x 32 pixels; for Inception stands a fixed projection to as many features, 2,048
pooled, 2,023 spatial, 1,008 logits. Each stage runs in a process of its own, whose peak is what counts.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import map_shards
from pipelines.dag.workspace import Workspace
from pipelines.evaluation.looking import LookAtReferenceJob, LookAtSamplesJob, LookConfig
from pipelines.evaluation.real_images import RealImagesConfig, ranges
from pipelines.evaluation.sampling import SAMPLES, SampleFile
from pipelines.stages.score_samples import ScoreSamples, ScoreSamplesConfig
from reptok.metrics.sample_files import NpzWriter

IMAGES, REAL, SIDE, ROWS = 50_000, 10_000, 32, 500
WIDTHS = {"pooled": 2048, "spatial": 2023, "logits": 1008}


class Stub:
    """A network of one fixed layer."""

    name = "inception"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.layers = {n: torch.randn(3 * SIDE**2, width, generator=generator) for n, width in WIDTHS.items()}

    def look(self, pixels: Tensor) -> dict[str, Tensor]:
        """Features of uint8 (B, 3, 32, 32)."""
        values = pixels.flatten(1).float() / 255 - 0.5
        return {name: values @ layer for name, layer in self.layers.items()}


@dataclass(frozen=True, kw_only=True)
class StubLook(LookConfig):
    """Has the stub look."""

    batch_size: int = 250

    def network(self) -> Stub:
        """The stub."""
        return Stub()


def write_samples(folder: Path, images: int, top: int) -> None:
    """Noise of values below `top` in files of `ROWS`."""
    out, files = Workspace(str(folder), "0"), []
    for number, start in enumerate(range(0, images, ROWS)):
        rows = min(ROWS, images - start)
        pixels = np.random.default_rng((top, number)).integers(0, top, (rows, 3, SIDE, SIDE), dtype=np.uint8)
        with out.create(SAMPLES.format(number)) as file:
            archive = NpzWriter(file, rows, SIDE)  # type: ignore[arg-type]
            archive.add(torch.from_numpy(pixels))
            archive.close()
        out.write_bytes(SAMPLES.format(number).replace(".npz", ".jsonl"), b'{"row": 0}\n')
        files.append(SampleFile(SAMPLES.format(number), rows))
    out.write_json("index.json", [asdict(file) for file in files])
    out.publish({})


def look_at_samples(root: Path, images: int) -> None:
    """Features of the samples, one shard after the other, as one worker does them."""
    shards = ranges("samples", images, ROWS)
    for shard in shards:
        shard.payload["file"] = SAMPLES.format(shard.index)
    out = Workspace(str(root / "features"), "0")
    map_shards(
        shards, LookAtSamplesJob(StubLook(), Artifact("samples", "0", str(root / "samples"))), out, here=True
    )
    out.publish({})


def look_at_reference(root: Path, images: int) -> None:
    """Features of the real images."""
    pixels = np.random.default_rng(7).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)
    np.savez(root / "real.npz", pixels)
    real, out = RealImagesConfig(path=str(root / "real.npz")), Workspace(str(root / "reference"), "0")
    map_shards(real.shards("reference"), LookAtReferenceJob(StubLook(), real), out, here=True)
    out.publish({})


def score(root: Path, images: int) -> None:
    """Every score of both."""
    looks = {"sample_features_inception": "features", "reference_features_inception": "reference"}
    kinds = {"samples": "samples", **looks}
    inputs = {kind: Artifact(kind, "0", str(root / name)) for kind, name in kinds.items()}
    stats = ScoreSamples(ScoreSamplesConfig(reference="noise")).run(
        inputs, Workspace(str(root / "scores"), "0")
    )
    if f"gfid/noise_n{images}" not in stats:
        raise RuntimeError(f"no score of {images:,} images: {sorted(stats)}")


def measured(work: Callable[[Path, int], None], root: Path, images: int) -> tuple[float, float]:
    """Peak memory in GB and seconds of wall of some work in a process of its own."""
    begun, result = time.perf_counter(), root / "peak.json"
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(work, root, images, result))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")
    return json.loads(result.read_text()) * 1024 / 1e9, time.perf_counter() - begun


def _work(work: Callable[[Path, int], None], root: Path, images: int, result: Path) -> None:
    work(root, images)
    result.write_text(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    images = int(arguments[0]) if arguments else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_samples(root / "samples", images, 200)
        for work, number in ((look_at_samples, images), (look_at_reference, REAL), (score, images)):
            gigabytes, seconds = measured(work, root, number)
            print(
                f"{work.__name__:<18} {number:>7,} images  {gigabytes:5.2f} GB at most  "
                f"{1000 * seconds / number:6.2f} s per 1,000",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
