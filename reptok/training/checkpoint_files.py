"""The files of a checkpoint: their names, whether they are whole, and reading rows that anybody wrote."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from reptok.training.sharding import Rows

FACTS, PARTS = "state.json", "rank-?????.safetensors"


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint in which every file has the size and the digest that were written."""
    return next((place for place in checkpoints(folder) if is_whole(place)), None)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoint folders, newest first, without looking inside."""
    return sorted(folder.glob("step-????????"), reverse=True)


def folder_name(step: int) -> str:
    """Return the name of a step's checkpoint."""
    return f"step-{step:08d}"


def is_whole(place: Path) -> bool:
    """Tell whether a checkpoint's files are those that were written."""
    try:
        described = json.loads((place / FACTS).read_text())
        return described.pop("sha256") == digest_of_json(described) and all(
            (place / name).stat().st_size == facts["bytes"] and digest(place / name) == facts["sha256"]
            for name, facts in described["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read(place: Path, like: Mapping[str, Tensor], wanted: Mapping[str, Rows]) -> dict[str, Tensor]:
    """Read a checkpoint's tensors, whoever wrote which rows of them.

    Args:
        place: A whole checkpoint.
        like: Tensors by name, for type and device.
        wanted: The rows to read of those that are sharded here; of any other all rows.

    Returns:
        Tensors by name, those in the checkpoint.

    Raises:
        ValueError: Rows of a tensor are missing.
    """
    found: dict[str, list[tuple[int, Tensor]]] = {}
    for path in sorted(place.glob(PARTS)):
        with safe_open(path, "pt") as file:
            rows = {name: Rows(*r) for name, r in json.loads(file.metadata()["rows"]).items()}
            for name in file.keys():  # noqa: SIM118
                have, want = rows.get(name), wanted.get(name)
                view = file.get_slice(name)
                if have is None and want is None:
                    found[name] = [(0, file.get_tensor(name))]
                    continue
                total = have.total if have else view.get_shape()[0]
                have, want = have or Rows(0, total, total), want or Rows(0, total, total)
                start, stop = max(have.start, want.start), min(have.stop, want.stop)
                pieces = found.setdefault(name, [])
                if start < stop or not pieces:
                    pieces.append((start, view[start - have.start : max(start, stop) - have.start]))
    return {name: _joined(pieces) for name, pieces in found.items()}


def _joined(pieces: list[tuple[int, Tensor]]) -> Tensor:
    if len(pieces) == 1:
        return pieces[0][1]
    return torch.cat([piece for _, piece in sorted(pieces, key=lambda pair: pair[0])])


def write_json(path: Path, value: Any) -> None:
    """Write a file that is whole or absent, and on the disk when this returns."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, sort_keys=True))
    sync(partial)
    partial.rename(path)
    sync(path.parent)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of_json(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Have a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
