"""Published shards as samples that are addressed by number.

They are read at their places in few open files; see `stream` for the order.

`dataset` shards name the samples; `latents` and `tokens` shards are aligned with them (same shard number,
same order).
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reptok.data.batch import GeneratorBatch, TokenizerBatch
from reptok.data.excluded import Included, read_excluded
from reptok.data.images import centre_crop, decode_image
from reptok.data.index import QUARANTINE
from reptok.data.lanes import LANES
from reptok.data.order import WINDOW
from reptok.data.remote import DataPath, RemotePath
from reptok.data.rows import BlockRows, ImageRows, Shards
from reptok.data.stream import Columns

OPEN_TABLES = 3 * LANES
"""Shards whose captions lie in memory: those of each lane's window, and of the next one."""


class TokenizerData:
    """Images, moments and frozen tokens of one split."""

    def __init__(self, dataset: DataPath, latents: DataPath, split: str = "train", cache_bytes: int = 0):
        """Open the artifacts' folders.

        Args:
            dataset: Folder of the `dataset` artifact.
            latents: Folder of the `latents` artifact made from it.
            split: "train" or "val".
            cache_bytes: Keep decoded images (uint8) in memory when the whole split fits in so many bytes.

        Raises:
            ValueError: A shard is missing, damaged or of another dataset.
        """
        names, rows = _split(dataset, split, latents)
        self._included = Included(names, rows, read_excluded(dataset))
        self.rows = self._included.rows
        self.image_size = int(_index(dataset)["image_size"])
        self._images = Shards([dataset / f"{name}.tar" for name in names], rows, ImageRows)
        self._latents = Shards([latents / f"{name}.tar" for name in names], rows, BlockRows)
        _check_keys(self._images, self._latents, range(len(rows)) if sum(rows) <= WINDOW else [0])
        shape = (sum(rows), self.image_size, self.image_size, 3)
        fits = int(np.prod(shape)) <= cache_bytes
        self._pixels = np.empty(shape, np.uint8) if fits else None
        self._decoded = np.zeros(shape[0], bool)

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> TokenizerBatch:
        """Read samples by number; JPEGs are decoded at most once where they are cached, or not at all."""
        seen = columns is None or "images" in columns
        stored = self._included.stored(samples)
        return TokenizerBatch(
            images=self._read_images(stored, flipped) if seen else None,
            moments=gather(self._latents, "moments", stored, flipped),
            frozen_token=gather(self._latents, "frozen_token", stored, flipped),
            samples=samples,
        )

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch them; no image that is cached."""
        samples = self._included.stored(samples)
        for name in ("moments", "frozen_token"):
            fetch(self._latents, name, samples, flipped)
        if columns is None or "images" in columns:
            for shard, rows, _ in self._images.locate(self._missing(samples)):
                shard.file.fetch(shard.offsets[rows], shard.sizes[rows])

    def _read_images(self, samples: np.ndarray, flipped: np.ndarray) -> Tensor:
        pixels = self._read_pixels(samples)
        pixels[flipped] = pixels[flipped, :, ::-1]
        return torch.from_numpy(pixels)

    def _read_pixels(self, samples: np.ndarray) -> np.ndarray:
        missing = self._missing(samples)
        fresh = np.empty((len(missing), self.image_size, self.image_size, 3), np.uint8)
        for shard, rows, places in self._images.locate(missing):
            for row, place in zip(rows, places, strict=True):
                fresh[place] = centre_crop(decode_image(shard.jpg(row)), self.image_size)
        if self._pixels is None:
            return fresh
        self._pixels[missing], self._decoded[missing] = fresh, True
        return self._pixels[samples]

    def _missing(self, samples: np.ndarray) -> np.ndarray:
        return samples if self._pixels is None else samples[~self._decoded[samples]]


class GeneratorData:
    """Tokens with captions and labels of one split; no image is read."""

    def __init__(self, dataset: DataPath, tokens: DataPath, split: str = "train"):
        """Open the artifacts' folders.

        Args:
            dataset: Folder of the `dataset` artifact.
            tokens: Folder of the `tokens` artifact made from it.
            split: "train" or "val".

        Raises:
            ValueError: A shard is missing, damaged or of another dataset.
        """
        names, rows = _split(dataset, split, tokens)
        self._included = Included(names, rows, read_excluded(dataset))
        self.rows = self._included.rows
        self._tables = Shards([dataset / f"{name}.parquet" for name in names], rows, _TableRows, OPEN_TABLES)
        self._tokens = Shards([tokens / f"{name}.tar" for name in names], rows, BlockRows)
        _check_keys(self._tables, self._tokens, range(len(rows)) if sum(rows) <= WINDOW else [0])

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> GeneratorBatch:
        """Read samples by number; a mirrored image has a token of its own and the same caption."""
        captions, labels = [""] * len(samples), np.full(len(samples), -1, np.int64)
        stored = self._included.stored(samples)
        for shard, rows, places in self._tables.locate(stored):
            for row, place in zip(rows, places, strict=True):
                captions[place], labels[place] = shard.captions[row], shard.labels[row]
        token = gather(self._tokens, "token", stored, flipped)
        return GeneratorBatch(token, captions, torch.from_numpy(labels), samples)

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch their tokens; captions and labels lie in memory."""
        fetch(self._tokens, "token", self._included.stored(samples), flipped)


class _TableRows:
    """Captions and labels of one shard."""

    def __init__(self, path: DataPath):
        import pyarrow.parquet as pq  # here, so that latents and tokens alone can be read without it

        file: Any = path.open() if isinstance(path, RemotePath) else path
        table = pq.read_table(file, columns=["key", "caption", "label"])
        self._keys = table.column("key").to_pylist()
        self.captions = table.column("caption").to_pylist()
        self.labels = np.array(
            [-1 if label is None else label for label in table.column("label").to_pylist()], np.int64
        )

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> list[str]:
        return self._keys


def split_sizes(dataset: DataPath) -> dict[str, int]:
    """Return the number of samples of each split of a `dataset` folder."""
    return {
        split: sum(shard["rows"] for shard in shards) for split, shards in _index(dataset)["splits"].items()
    }


def _index(dataset: DataPath) -> dict[str, Any]:
    return json.loads((dataset / "index.json").read_text())


def _split(dataset: DataPath, split: str, derived: DataPath) -> tuple[list[str], list[int]]:
    """Return names and rows of the shards of a split, but for those that `derived` was published without."""
    splits = _index(dataset)["splits"]
    if split not in splits:
        raise ValueError(f"the dataset has no {split!r} samples (it has: {', '.join(splits)})")
    lacking = derived / QUARANTINE
    absent = {entry["shard"] for entry in json.loads(lacking.read_text())} if lacking.exists() else set()
    shards = [shard for shard in splits[split] if shard["shard"] not in absent]
    return [shard["shard"] for shard in shards], [int(shard["rows"]) for shard in shards]


def _check_keys(samples: Shards, derived: Shards, numbers: range | list[int]) -> None:
    """Refuse latents or tokens that were made from another dataset."""
    for number in numbers:
        if number < len(samples.rows) and samples.shard(number).keys() != derived.shard(number).keys():
            raise ValueError(
                f"{derived.paths[number]} has other keys than {samples.paths[number]}: it was made from "
                "another dataset; rerun the stage that made it"
            )


def gather(shards: Shards[BlockRows], name: str, samples: np.ndarray, flipped: np.ndarray) -> Tensor:
    """Read array `name` of some samples as stored, (B, ...), of the mirror image where `flipped` (B,).

    Raises:
        ValueError: There is no sample, or the shards do not hold such an array of one type.
    """
    result: np.ndarray | None = None
    for shard, rows, places in shards.locate(samples):
        one, offsets = shard.find(name, rows, flipped[places].astype(np.int64))
        if result is None:
            result = np.empty((len(samples), *one.shape), one.dtype)
        if (result.dtype, result.shape[1:]) != (one.dtype, one.shape):
            raise ValueError(f"{shard.file.path} holds {name!r} {one.shape}, other shards {result.shape[1:]}")
        shard.file.read_rows(result, places, offsets)
    if result is None:
        raise ValueError("no sample was asked for")
    return torch.from_numpy(result)


def fetch(shards: Shards[BlockRows], name: str, samples: np.ndarray, flipped: np.ndarray) -> None:
    """Let the system fetch what `gather` will read."""
    for shard, rows, places in shards.locate(samples):
        one, offsets = shard.find(name, rows, flipped[places].astype(np.int64))
        shard.file.fetch(offsets, np.full(len(offsets), one.bytes))
