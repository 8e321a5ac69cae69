"""Run data stages in this process: the engine's plan, records and accounting, without Ray's processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.dag import shards as shards_module
from pipelines.dag.artifact import Artifact
from pipelines.dag.failures import described
from pipelines.dag.shard_actor import ShardActor
from pipelines.dag.stage import Stage
from pipelines.dag.workspace import Workspace
from pipelines.stages.import_images import ImportImages, ImportImagesConfig


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `map_shards` run its actor here, the last shard first: the order must not matter."""

    def stream(missing, job, out, resources, *ends):
        try:
            actor = ShardActor(job, out)
        except Exception as error:
            yield from ((shard.index, {}, described(error)) for shard in missing)
            return
        for shard in reversed(missing):
            row = actor({"shard": json.dumps(asdict(shard))})
            yield row["index"], json.loads(row["record"] or "{}"), row["failure"]

    monkeypatch.setattr(shards_module, "_stream", stream)
    monkeypatch.setattr(shards_module, "RETRY_SECONDS", 0.0)


@pytest.fixture
def run_stage(tmp_path: Path, in_process: None) -> Callable[..., tuple[Artifact, dict[str, float]]]:
    """Run a stage into a folder and publish it: `run_stage(stage, inputs, name) -> (artifact, stats)`."""

    def run(
        stage: Stage, inputs: Mapping[str, Artifact], name: str = "out"
    ) -> tuple[Artifact, dict[str, float]]:
        out = Workspace(str(tmp_path / name), name)
        stats = dict(stage.run(inputs, out))
        out.publish({"stage": stage.name})
        return Artifact(stage.output, name, out.url), stats

    return run


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Publish what a function writes: `make_artifact(kind, write) -> artifact`, with `write(workspace)`."""

    def make(kind: str, write: Callable[[Workspace], None], name: str = "") -> Artifact:
        out = Workspace(str(tmp_path / (name or kind)), name or kind)
        write(out)
        out.publish({"stage": "test"})
        return Artifact(kind, name or kind, out.url)

    return make


def contents(artifact: Artifact) -> dict[str, str]:
    """SHA-256 of every published file by name."""
    return {name: entry["sha256"] for name, entry in artifact.manifest["files"].items()}


@pytest.fixture
def digests() -> Callable[[Artifact], dict[str, str]]:
    """`digests(artifact)`: SHA-256 of every published file by name."""
    return contents


@pytest.fixture
def dataset(tmp_path: Path, run_stage: Callable[..., tuple[Artifact, dict[str, float]]]) -> Artifact:
    """A dataset of 20 pictures of 32 px in 3 shards, two classes, with train and val samples."""
    noise = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "pictures" / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        blocks = noise.integers(0, 256, (4, 5, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        Image.fromarray(blocks).save(folder / f"{number}.png")
    config = ImportImagesConfig(
        folder=str(tmp_path / "pictures"), image_size=32, val_fraction=0.3, samples_per_shard=7
    )
    return run_stage(ImportImages(config), {}, "dataset")[0]
