"""Which samples a model was trained on, as far as a few megabytes can say it: `training_keys.safetensors`.

A sample is known by 64 bits of the SHA-256 of its key. Of up to a million training samples all stand
there; of more, those with the smallest hashes, an even choice: another set is then compared by those of its
samples whose hashes lie in that range. Hardly any is taken for known that is not (by chance one in 2^44).

A key says what a sample is inside its source: `1.jpg` of two folders have one key. So of some samples the
record has the look, too, 64 bits that a picture keeps when it is resized: where keys are equal and looks are
not, these are other pictures by the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

FILE = "training_keys.safetensors"
LIMIT = 2**20
ALL = 2**64 - 1
ALIKE = 10
"""Bits in which two looks of one picture may differ; those of two pictures differ in 32 +- 4."""

Look = Callable[[Sequence[int]], Sequence[int]]
"""The looks (perceptual hashes of 64 bits) of the samples at some positions of a set."""


@dataclass(frozen=True)
class Overlap:
    """How much of a set a training knew.

    Attributes:
        images: of the set.
        compared: how many of them could be compared.
        known: how many of these the training had.
        namesakes: how many have the key of a training sample and are another picture.
    """

    images: int
    compared: int
    known: int
    namesakes: int = 0


@dataclass(frozen=True)
class TrainingKeys:
    """The record of a training's samples.

    Attributes:
        dataset: fingerprint of their dataset.
        samples: how many there were.
        hashes: (K,) uint64, ascending.
        bound: no hash up to this one is missing; 2^64 - 1 where none is.
        started_from: models that the training began with, whose own samples are not among these; "" for none.
        looks: (L, 2) uint64, hash and look of some samples, ascending.
    """

    dataset: str
    samples: int
    hashes: np.ndarray
    bound: int
    started_from: str = ""
    looks: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.uint64))

    @classmethod
    def of(
        cls,
        parts: Iterable[Sequence[str]],
        dataset: str,
        limit: int = LIMIT,
        started_from: str = "",
        looks: Mapping[str, int] = MappingProxyType({}),
    ) -> TrainingKeys:
        """Take the keys of a training, part by part, and keep `limit` hashes at most; looks are by key."""
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
        seen = np.stack([_hashes(list(looks)), np.array(list(looks.values()), np.uint64)], 1)
        return cls(dataset, samples, hashes, bound, started_from, seen[np.argsort(seen[:, 0])])

    def overlap(self, keys: Sequence[str], look: Look | None = None) -> Overlap:
        """How many of these samples the training had.

        Of equal keys all count whose looks are not known to differ, unless none of the known ones is alike:
        then the names are equal by accident, and none counts.
        """
        hashes = _hashes(keys)
        compared = hashes <= np.uint64(self.bound)
        equal = compared & np.isin(hashes, self.hashes)
        seen = np.flatnonzero(equal & np.isin(hashes, self.looks[:, 0])) if look else np.empty(0, int)
        others = 0
        if look and len(seen):
            own = np.array(look(seen.tolist()), np.uint64)
            theirs = self.looks[np.searchsorted(self.looks[:, 0], hashes[seen]), 1]
            alike = np.bitwise_count(own ^ theirs) <= ALIKE
            others = int((~alike).sum()) if alike.any() else int(equal.sum())
        return Overlap(len(hashes), int(compared.sum()), int(equal.sum()) - others, others)

    def as_bytes(self) -> bytes:
        """The file's content."""
        told = {
            "dataset": self.dataset, "samples": str(self.samples), "bound": str(self.bound),
            "started_from": self.started_from,
        }  # fmt: skip
        return save({"hashes": self.hashes, "looks": self.looks}, told)

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
                told, hashes, looks = file.metadata() or {}, *map(file.get_tensor, ("hashes", "looks"))
            samples, bound = int(told["samples"]), int(told["bound"])
            found = cls(told["dataset"], samples, hashes, bound, told["started_from"], looks)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is no record of training keys: {error}") from error
        fine = hashes.ndim == 1 and looks.shape[1:] == (2,) and 0 <= found.bound <= ALL
        if not fine or {hashes.dtype, looks.dtype} != {np.dtype(np.uint64)}:
            raise ValueError(
                f"{path} is no record of training keys: {hashes.dtype} {hashes.shape}, "
                f"{looks.dtype} {looks.shape}"
            )
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
