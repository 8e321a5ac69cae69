"""The order in which training sees its samples: a pure function of (seed, position).

The stream is the endless concatenation of epochs; each epoch is a permutation of all samples, so every
sample comes exactly once per epoch even where a batch crosses the boundary. Blocks of neighbouring samples
are permuted first, then samples inside windows of whole blocks: a window costs sequential reads of its
blocks, and a data set that is not larger than one window is permuted completely. Neither workers nor ranks
enter.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

WINDOW = 10_000


class SampleOrder:
    """A shuffled, endless stream of sample indices.

    Attributes:
        samples: Number of samples in an epoch.
    """

    def __init__(
        self,
        block_rows: Sequence[int] | np.ndarray,
        seed: int,
        window: int = WINDOW,
        *,
        starts: np.ndarray | None = None,
        words: tuple[int, ...] = (),
    ):
        """Order the samples of blocks.

        Args:
            block_rows: Samples in each block of neighbours, in storage order.
            seed: Any integer; another seed is another order.
            window: Smallest number of samples that are shuffled together.
            starts: Number of the first sample of each block; from 0 on by default.
            words: Numbers that tell its random numbers from those of others of the same seed.

        Raises:
            ValueError: There is no sample.
        """
        self.seed, self.window, self._words = seed, window, words
        self._rows = np.asarray(block_rows, np.int64)
        self._starts = np.cumsum(self._rows) - self._rows if starts is None else starts
        self.samples = int(self._rows.sum())
        if self.samples == 0:
            raise ValueError(
                "there is no sample to train on; look at the stats of the stages that made the data"
            )
        self._windows = lru_cache(maxsize=2)(self._window)
        self._plans = lru_cache(maxsize=2)(self._plan)

    def take(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples at stream positions [position, position + count).

        Returns:
            Sample indices int64 (count,) in [0, samples), and the epoch of each, int64 (count,).
        """
        indices, epochs = [], []
        while count > 0:
            epoch, offset = divmod(position, self.samples)
            _, ends = self._plans(epoch)
            window = int(np.searchsorted(ends, offset, side="right"))
            start = int(ends[window - 1]) if window else 0
            part = self._windows(epoch, window)[offset - start : offset - start + count]
            indices.append(part)
            epochs.append(np.full(len(part), epoch, np.int64))
            position, count = position + len(part), count - len(part)
        return np.concatenate(indices), np.concatenate(epochs)

    def window_end(self, position: int) -> int:
        """Return the stream position at which the window that holds `position` ends."""
        epoch, offset = divmod(position, self.samples)
        ends = self._plans(epoch)[1]
        return epoch * self.samples + int(ends[np.searchsorted(ends, offset, side="right")])

    def flips(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Choose which samples are mirrored: bool (count,), a fair coin per (seed, epoch, sample)."""
        return flips(self.seed, indices, epochs)

    def _plan(self, epoch: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Group the epoch's permuted blocks into windows: the block numbers of each, and where each ends."""
        blocks = _random(self.seed, epoch, *self._words).permutation(len(self._rows))
        ends = np.cumsum(self._rows[blocks])
        cuts, start = [], 0
        for block, end in enumerate(ends):
            if end - start >= self.window and self.samples - end >= self.window:
                cuts.append(block + 1)
                start = end
        groups = np.split(blocks, cuts)
        return groups, np.cumsum([self._rows[group].sum() for group in groups])

    def _window(self, epoch: int, window: int) -> np.ndarray:
        group = self._plans(epoch)[0][window]
        samples = np.concatenate([np.arange(self._starts[b], self._starts[b] + self._rows[b]) for b in group])
        return _random(self.seed, epoch, *self._words, window + 1).permutation(samples)


def flips(seed: int, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    """Choose which samples are mirrored: bool (count,), a fair coin per (seed, epoch, sample)."""
    with np.errstate(over="ignore"):
        state = _scramble(indices.astype(np.uint64) + _scramble(epochs.astype(np.uint64) + np.uint64(seed)))
    return (state >> np.uint64(63)).astype(bool)


def _random(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def _scramble(state: np.ndarray) -> np.ndarray:
    """Mix 64 bits (the finaliser of SplitMix64)."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
