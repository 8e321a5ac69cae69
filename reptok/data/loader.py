"""From published shards to training batches.

Samples are addressed by number, read through memory maps and grouped by the rank that asked; the order is a
pure function of (seed, position) (see `order`), so a loader has no state beyond the number of samples
consumed.

`dataset` shards name the samples; `latents` and `tokens` shards are aligned with them (same shard number,
same order).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from reptok.data.batch import GeneratorBatch, TokenizerBatch
from reptok.data.blocks import SAMPLES_PER_BLOCK
from reptok.data.images import centre_crop, decode_image
from reptok.data.index import QUARANTINE
from reptok.data.order import WINDOW, SampleOrder
from reptok.data.rows import BlockRows, ImageRows, Shards

B = TypeVar("B", covariant=True)
Columns = frozenset[str] | None


class Readable(Protocol[B]):
    """A split whose samples can be read by number."""

    rows: list[int]

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> B:
        """Return the batch of the given sample numbers, mirrored where `flipped`.

        Of `columns` that can be left out, those that are not named are; None leaves nothing out.
        """
        ...


class TokenizerData:
    """Images, moments and frozen tokens of one split."""

    def __init__(self, dataset: Path, latents: Path, split: str = "train", cache_bytes: int = 0):
        """Open the artifacts' folders.

        Args:
            dataset: Folder of the `dataset` artifact.
            latents: Folder of the `latents` artifact made from it.
            split: "train" or "val".
            cache_bytes: Keep decoded images (uint8) in memory when the whole split fits in so many bytes.

        Raises:
            ValueError: A shard is missing, damaged or of another dataset.
        """
        names, self.rows = _split(dataset, split, latents)
        self.image_size = int(_index(dataset)["image_size"])
        self._images = Shards([dataset / f"{name}.tar" for name in names], self.rows, ImageRows)
        self._latents = Shards([latents / f"{name}.tar" for name in names], self.rows, BlockRows)
        _check_keys(self._images, self._latents, range(len(self.rows)) if sum(self.rows) <= WINDOW else [0])
        shape = (sum(self.rows), self.image_size, self.image_size, 3)
        fits = int(np.prod(shape)) <= cache_bytes
        self._pixels = np.empty(shape, np.uint8) if fits else None
        self._decoded = np.zeros(shape[0], bool)

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> TokenizerBatch:
        """Read samples by number; JPEGs are decoded at most once where they are cached, or not at all."""
        seen = columns is None or "images" in columns
        return TokenizerBatch(
            images=self._read_images(samples, flipped) if seen else None,
            moments=gather(self._latents, "moments", samples, flipped),
            frozen_token=gather(self._latents, "frozen_token", samples, flipped),
            samples=samples,
        )

    def _read_images(self, samples: np.ndarray, flipped: np.ndarray) -> Tensor:
        pixels = self._read_pixels(samples)
        pixels[flipped] = pixels[flipped, :, ::-1]
        return torch.from_numpy(pixels)

    def _read_pixels(self, samples: np.ndarray) -> np.ndarray:
        missing = samples if self._pixels is None else samples[~self._decoded[samples]]
        fresh = np.empty((len(missing), self.image_size, self.image_size, 3), np.uint8)
        for shard, rows, places in self._images.locate(missing):
            for row, place in zip(rows, places, strict=True):
                fresh[place] = centre_crop(decode_image(shard.jpg(row)), self.image_size)
        if self._pixels is None:
            return fresh
        self._pixels[missing], self._decoded[missing] = fresh, True
        return self._pixels[samples]


class GeneratorData:
    """Tokens with captions and labels of one split; no image is read."""

    def __init__(self, dataset: Path, tokens: Path, split: str = "train"):
        """Open the artifacts' folders.

        Args:
            dataset: Folder of the `dataset` artifact.
            tokens: Folder of the `tokens` artifact made from it.
            split: "train" or "val".

        Raises:
            ValueError: A shard is missing, damaged or of another dataset.
        """
        names, self.rows = _split(dataset, split, tokens)
        self._tables = Shards([dataset / f"{name}.parquet" for name in names], self.rows, _TableRows)
        self._tokens = Shards([tokens / f"{name}.tar" for name in names], self.rows, BlockRows)
        _check_keys(self._tables, self._tokens, range(len(self.rows)) if sum(self.rows) <= WINDOW else [0])

    def read(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> GeneratorBatch:
        """Read samples by number; a mirrored image has a token of its own and the same caption."""
        captions, labels = [""] * len(samples), np.full(len(samples), -1, np.int64)
        for shard, rows, places in self._tables.locate(samples):
            for row, place in zip(rows, places, strict=True):
                captions[place], labels[place] = shard.captions[row], shard.labels[row]
        token = gather(self._tokens, "token", samples, flipped)
        return GeneratorBatch(token, captions, torch.from_numpy(labels), samples)


class Batches(Generic[B]):
    """One rank's share of an endless stream of shuffled batches."""

    def __init__(
        self,
        data: Readable[B],
        batch_size: int,
        seed: int,
        *,
        flip: bool = True,
        rank: int = 0,
        world_size: int = 1,
        window: int = WINDOW,
        readers: int = 1,
        pin: bool = False,
        columns: Callable[[int], Columns] | None = None,
    ):
        """Divide the stream among ranks.

        Args:
            data: The split to read.
            batch_size: Samples of a step over all ranks.
            seed: Of the order and of the mirroring.
            flip: Mirror a random half of the samples, chosen anew in every epoch.
            rank: This process, in [0, world_size).
            world_size: Number of processes.
            window: Smallest number of samples that are shuffled together.
            readers: Threads that read ahead, one batch each.
            pin: Leave batches in pinned memory, for a GPU.
            columns: What the loss of a step looks at; everything by default.

        Raises:
            ValueError: The split is empty, or there are more ranks than samples, in all or in a batch.
        """
        blocks = [
            min(SAMPLES_PER_BLOCK, rows - start)
            for rows in data.rows
            for start in range(0, rows, SAMPLES_PER_BLOCK)
        ]
        self.data, self.batch_size, self.flip = data, batch_size, flip
        self.readers, self.pin = readers, pin
        self.columns = columns or (lambda step: None)
        self.order = SampleOrder(blocks, seed, window)
        if world_size > self.order.samples:
            raise ValueError(
                f"{world_size} training workers for {self.order.samples} samples: some would have nothing to "
                "read; lower train.workers"
            )
        if world_size > batch_size:
            raise ValueError(
                f"train.batch_size {batch_size} gives {world_size} training workers less than one sample "
                "each; lower train.workers"
            )
        edges = [batch_size * number // world_size for number in (rank, rank + 1)]
        self.mine = slice(*edges)
        shards = sum(rows > 0 for rows in data.rows)
        self.notes = (
            [f"{world_size} training workers read {shards} shards: every shard is read by several of them"]
            if world_size > shards
            else []
        )

    def read(self, position: int) -> B:
        """Return this rank's rows of the batch that starts at a stream position (samples consumed so far)."""
        indices, epochs = self.order.take(position, self.batch_size)
        indices, epochs = indices[self.mine], epochs[self.mine]
        flips = self.order.flips(indices, epochs) if self.flip else np.zeros(len(indices), bool)
        batch = self.data.read(indices, flips, self.columns(position // self.batch_size))
        return cast(Any, batch).pinned() if self.pin else batch

    def stream(self, position: int) -> Iterator[B]:
        """Yield the batches from a stream position on; the next ones are read while one is in use."""
        with ThreadPoolExecutor(self.readers, thread_name_prefix="loader") as pool:
            ahead: deque[Future[B]] = deque()
            try:
                while True:
                    while len(ahead) <= self.readers:
                        ahead.append(pool.submit(self.read, position))
                        position += self.batch_size
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()


class _TableRows:
    """Captions and labels of one shard."""

    def __init__(self, path: Path):
        import pyarrow.parquet as pq  # here, so that latents and tokens alone can be read without it

        table = pq.read_table(path, columns=["key", "caption", "label"])
        self._keys = table.column("key").to_pylist()
        self.captions = table.column("caption").to_pylist()
        self.labels = np.array(
            [-1 if label is None else label for label in table.column("label").to_pylist()], np.int64
        )

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> list[str]:
        return self._keys


def split_sizes(dataset: Path) -> dict[str, int]:
    """Return the number of samples of each split of a `dataset` folder."""
    return {
        split: sum(shard["rows"] for shard in shards) for split, shards in _index(dataset)["splits"].items()
    }


def _index(dataset: Path) -> dict[str, Any]:
    return json.loads((dataset / "index.json").read_text())


def _split(dataset: Path, split: str, derived: Path) -> tuple[list[str], list[int]]:
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
    """Read array `name` of some samples as stored, (B, ...), of the mirror image where `flipped` (B,)."""
    variants = flipped.astype(np.int64)
    result: np.ndarray | None = None
    for shard, rows, places in shards.locate(samples):
        for array, chosen, these in shard.locate(name, rows):
            if result is None:
                result = np.empty((len(samples), *array.shape[2:]), array.dtype)
            result[places[these]] = array[chosen, variants[places[these]]]
    if result is None:
        raise ValueError("no sample was asked for")
    return torch.from_numpy(result)
