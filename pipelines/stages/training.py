"""What the two training stages share: what they occupy, and publishing what the workers left."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from pipelines.dag.reference import fetch_model, refer
from pipelines.dag.stage import Artifact, Resources, Workspace
from pipelines.dag.storage import LocalFolder
from reptok.training.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from reptok.data.remote import RemotePath
    from reptok.training.task import Training

INIT = {"reference": "network", "optional": True}
"""Of the field that names a published model to start from: it counts by its weights."""


def start_folder(init: str) -> str:
    """Where the model to start from lies, an absolute folder or a hub id that was fetched; "" for none."""
    if not init:
        return ""
    fetch_model(init, "init")
    found = refer(init, "init")
    return str(found.folder) if found.folder else found.hub


def read_in_parts(artifact: Artifact) -> Path | RemotePath:
    """Where a training reads an artifact: of one on an object store what it needs, when it needs it."""
    from reptok.data.remote import RemotePath

    return artifact.folder.path() if isinstance(artifact.folder, LocalFolder) else RemotePath(artifact.url)


def training_resources(train: TrainConfig) -> Resources:
    """Return what a training occupies while it runs."""
    return Resources(cpus=train.workers * train.threads, gpus=train.workers * train.gpus_per_worker)


def train_and_publish(training: Training, out: Workspace) -> dict[str, float]:
    """Train, unless an interrupted attempt already finished, and put the result into the workspace.

    Args:
        training: What to train.
        out: The stage's workspace.

    Returns:
        The last metrics of the training, as stats.
    """
    from pipelines.training.launch import launch
    from pipelines.training.scratch import finished
    from reptok.training.run import CURVES, RESULT, finished_folder

    folder = finished_folder(out.scratch)
    if finished(out):  # workers may outlive a killed driver and finish; nobody heard their log
        for step, curves, _ in json.loads((folder / CURVES).read_text()):
            out.log.metrics(curves, step)
    else:
        launch(training, out)
    values = json.loads((folder / RESULT).read_text())
    if (init := folder / "model" / "init.json").exists():
        values |= {
            f"init/{k}": v for k, v in json.loads(init.read_text()).items() if k.startswith("parameters")
        }
    out.publish_folder(folder / "model")
    return {name.replace("/", "_"): value for name, value in values.items() if math.isfinite(value)}
