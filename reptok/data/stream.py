"""An endless stream of shuffled batches, of which every process reads its own rows.

The order is a pure function of (seed, position) (see `lanes`): there is no state beyond the number of samples
consumed, and what will be read is known, so that the system fetches the next window while one is in use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np

from reptok.data.blocks import SAMPLES_PER_BLOCK
from reptok.data.lanes import Lanes
from reptok.data.order import WINDOW

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

    def fetch(self, samples: np.ndarray, flipped: np.ndarray, columns: Columns = None) -> None:
        """Let the system fetch what `read` will read of these samples, and do not wait for it."""
        ...


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
        self.order = Lanes(blocks, batch_size, seed, window)
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
        indices, flips = self._flipped(indices[self.mine], epochs[self.mine])
        batch = self.data.read(indices, flips, self.columns(position // self.batch_size))
        return cast(Any, batch).pinned() if self.pin else batch

    def fetch(self, start: int, stop: int) -> None:
        """Let the system fetch this rank's samples of the stream positions [start, stop)."""
        indices, epochs = self.order.take(start, stop - start)
        places = np.arange(start, stop) % self.batch_size
        mine = (places >= self.mine.start) & (places < self.mine.stop)
        indices, flips = self._flipped(indices[mine], epochs[mine])
        if len(indices):
            self.data.fetch(indices, flips, self.columns((stop - 1) // self.batch_size))

    def stream(self, position: int) -> Iterator[B]:
        """Yield the batches from a stream position on; the next ones are read while one is in use.

        The system is told a window in advance what will be read.
        """
        fetched = position
        pool = ThreadPoolExecutor(self.readers, thread_name_prefix="loader")
        ahead: deque[Future[B]] = deque()
        try:
            while True:
                while len(ahead) <= self.readers:
                    ahead.append(pool.submit(self.read, position))
                    position += self.batch_size
                known = self.order.window_end(self.order.window_end(position))
                if fetched < known:  # where it fails the reading will say so
                    pool.submit(self.fetch, max(fetched, position), known)
                    fetched = known
                yield ahead.popleft().result()
        finally:  # nobody waits: it may be collected by a thread on which those that read depend
            pool.shutdown(wait=False, cancel_futures=True)

    def _flipped(self, indices: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flips = self.order.flips(indices, epochs) if self.flip else np.zeros(len(indices), bool)
        return indices, flips
