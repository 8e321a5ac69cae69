"""Which samples a model was trained on, as far as a few megabytes can say it: `training_keys.safetensors`.

A sample is known by 64 bits of the SHA-256 of its key. Of up to a million training samples all stand
there; of more, those with the smallest hashes, an even choice: another set is then compared by those of its
samples whose hashes lie in that range. Hardly any is taken for known that is not (by chance one in 2^44).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FILE = "training_keys.safetensors"
LIMIT = 2**20
ALL = 2**64 - 1


@dataclass(frozen=True)
class Overlap:
    """How much of a set a training knew.

    Attributes:
        images: of the set.
        compared: how many of them could be compared.
        known: how many of these the training had.
    """

    images: int
    compared: int
    known: int


@dataclass(frozen=True)
class TrainingKeys:
    """The record of a training's samples.

    Attributes:
        dataset: fingerprint of their dataset.
        samples: how many there were.
        hashes: (K,) uint64, ascending.
        bound: no hash up to this one is missing; 2^64 - 1 where none is.
        started_from: models that the training began with, whose own samples are not among these; "" for none.
    """

    dataset: str
    samples: int
    hashes: np.ndarray
    bound: int
    started_from: str = ""

    @classmethod
    def of(
        cls, parts: Iterable[Sequence[str]], dataset: str, limit: int = LIMIT, started_from: str = ""
    ) -> TrainingKeys:
        """Take the keys of a training, part by part, and keep `limit` hashes at most."""
        samples, bound, held = 0, ALL, 0
        found: list[np.ndarray] = []
        for keys in parts:
            samples += len(keys)
            new = _hashes(keys)
            found.append(new[new <= np.uint64(bound)])
            held += len(found[-1])
            if held > 2 * limit:
                found, bound = _smallest(found, limit, bound)
                held = len(found[0])
        (hashes,), bound = _smallest(found or [_hashes([])], limit, bound)
        return cls(dataset, samples, hashes, bound, started_from)

    def overlap(self, keys: Sequence[str]) -> Overlap:
        """How many of these samples the training had."""
        hashes = _hashes(keys)
        compared = hashes[hashes <= np.uint64(self.bound)]
        return Overlap(len(hashes), len(compared), int(np.isin(compared, self.hashes).sum()))

    def as_bytes(self) -> bytes:
        """The file's content."""
        told = {
            "dataset": self.dataset, "samples": str(self.samples), "bound": str(self.bound),
            "started_from": self.started_from,
        }  # fmt: skip
        return save({"hashes": self.hashes}, told)

    @classmethod
    def read(cls, folder: Path) -> TrainingKeys | None:
        """What a model's folder holds; None where it says nothing.

        Raises:
            ValueError: The file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as opened:
                file: Any = opened
                told, hashes = file.metadata() or {}, file.get_tensor("hashes")
            found = cls(
                told["dataset"], int(told["samples"]), hashes, int(told["bound"]), told["started_from"]
            )
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no record of training keys: {error}") from error
        if hashes.dtype != np.uint64 or hashes.ndim != 1 or not 0 <= found.bound <= ALL:
            raise ValueError(f"{path} is no record of training keys: {hashes.dtype} {hashes.shape}")
        return found


def _hashes(keys: Sequence[str]) -> np.ndarray:
    digests = b"".join(hashlib.sha256(key.encode()).digest()[:8] for key in keys)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def _smallest(parts: Sequence[np.ndarray], limit: int, bound: int) -> tuple[list[np.ndarray], int]:
    """The `limit` smallest of some hashes, each once and in order, and up to where none is missing."""
    hashes = np.unique(np.concatenate(parts))
    if len(hashes) <= limit:
        return [hashes], bound
    return [hashes[:limit]], int(hashes[limit - 1])
