"""Averaged weights that stay while a training goes on, for the model in the end (see `reptok.kept`).

{folder}/kept/step-00001000.safetensors    where all machines of the training see them
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from reptok.kept import CHECKPOINTS, INDEX, file_of
from reptok.training.checkpoint_files import sync
from reptok.training.shared import Shared
from reptok.weights import save_weights, write_json

KEPT = "kept"


def keep(weights: Mapping[str, Tensor], step: int, shared: Shared) -> None:
    """Write a step's weights, whole or not at all; a training that went back writes the same ones again."""
    name = f"{KEPT}/{file_of(step)}"
    place = shared.folder / name
    place.parent.mkdir(exist_ok=True)
    draft = place.with_suffix(".partial")
    save_weights(weights, draft)
    sync(draft)
    draft.rename(place)
    sync(place.parent)
    shared.push(name)


def gather(shared: Shared, model: Path, end: int) -> None:
    """Copy what was kept into the folder of the finished model, whose weights are those of step `end`."""
    shared.pull(KEPT)
    place = model / CHECKPOINTS
    place.mkdir(exist_ok=True)
    files = sorted((shared.folder / KEPT).glob("step-*.safetensors"))
    for file in files:
        shutil.copyfile(file, place / file.name)
    steps = [int(file.stem.removeprefix("step-")) for file in files]
    write_json(place / INDEX, {"kept": steps, "end": end})
