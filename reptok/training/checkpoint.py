"""Checkpoints that are whole or absent.

    {folder}/step-00000500/state.safetensors   weights, average, optimiser
    {folder}/step-00000500/state.json          counters, and the size and SHA-256 of the file above

A checkpoint is written beside its place, synced and renamed; it is read only if the digest agrees, and
otherwise the one before it is used. Nothing in it can execute: safetensors and JSON alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from reptok.training.state import TrainState

TENSORS, FACTS = "state.safetensors", "state.json"
KEEP = 2


def save_checkpoint(folder: Path, state: TrainState, keep: int = KEEP) -> Path:
    """Write the state as `folder/step-{step}` and remove all but the newest `keep` checkpoints.

    Returns:
        The checkpoint's folder.
    """
    place = folder / f"step-{state.step:08d}"
    if _facts(place) is not None:
        return place
    draft = folder / f".draft-{uuid.uuid4().hex[:12]}"
    draft.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in state.tensors().items()}, draft / TENSORS)
    _sync(draft / TENSORS)
    facts = {
        **state.counters(),
        "bytes": (draft / TENSORS).stat().st_size,
        "sha256": _digest(draft / TENSORS),
    }
    (draft / FACTS).write_text(json.dumps(facts, sort_keys=True))
    _sync(draft / FACTS)
    _sync(draft)
    if place.exists():
        shutil.rmtree(place)
    draft.rename(place)
    _sync(folder)
    for old in [*checkpoints(folder)[keep:], *folder.glob(".draft-*")]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def load_newest(folder: Path, state: TrainState) -> Path | None:
    """Load the newest checkpoint that is whole.

    Args:
        folder: Where `save_checkpoint` wrote; it need not exist.
        state: Takes the checkpoint's values; untouched when there is none.

    Returns:
        The checkpoint's folder, or None when there is nothing to resume from.

    Raises:
        ValueError: The checkpoint is whole but of another model.
    """
    for place in checkpoints(folder):
        if (loaded := _read(place)) is not None:
            state.load(*loaded)
            return place
    return None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first, without looking inside."""
    return sorted(folder.glob("step-????????"), reverse=True)


def _read(place: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    facts = _facts(place)
    if facts is None or _digest(place / TENSORS) != facts["sha256"]:
        return None
    return load_file(place / TENSORS), facts


def _facts(place: Path) -> dict[str, Any] | None:
    """Return `state.json` if both files are there and the sizes agree."""
    try:
        facts: dict[str, Any] = json.loads((place / FACTS).read_text())
        return facts if (place / TENSORS).stat().st_size == facts["bytes"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
