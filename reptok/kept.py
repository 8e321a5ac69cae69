"""Weights of steps on the way, which a training left beside those of its end.

{part}/checkpoints/index.json                  {"kept": [1000, 2000], "end": 2500}
{part}/checkpoints/step-00001000.safetensors   as the part's model.safetensors: averaged weights
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reptok.folder import MAX_JSON_BYTES, parse_json, read_bytes

CHECKPOINTS, INDEX, WEIGHTS = "checkpoints", "index.json", "model.safetensors"


@dataclass(frozen=True)
class Kept:
    """What a part of a model has.

    Attributes:
        steps: whose weights were kept, ascending.
        end: the step of the published weights.
    """

    steps: tuple[int, ...]
    end: int


def kept(part: Path) -> Kept:
    """The steps that a tokenizer's or generator's folder has weights of.

    Raises:
        FileNotFoundError: its training kept none.
        ValueError: the index is none.
    """
    source = part / CHECKPOINTS / INDEX
    if not source.is_file():
        raise FileNotFoundError(
            f"{part} holds the end of its training alone; train it with train.tokenizer.keep_every=N or "
            "train.generator.keep_every=N, and the weights of every N steps stay with it"
        )
    found = parse_json(read_bytes(source, MAX_JSON_BYTES), source)
    steps, end = found.get("kept"), found.get("end")
    if not (isinstance(end, int) and isinstance(steps, list) and all(isinstance(s, int) for s in steps)):
        raise ValueError(f"{source}: kept must be a list of steps, and end a step")
    return Kept(tuple(sorted(steps)), end)


def file_of(step: int) -> str:
    """Name of a step's file."""
    return f"step-{step:08d}.safetensors"


def weights_of(part: Path, step: int = 0) -> Path:
    """The file of a part's weights, which need not exist; 0 for the end."""
    return part / CHECKPOINTS / file_of(step) if step else part / WEIGHTS
