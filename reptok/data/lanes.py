"""The order of a large data set: lanes over disjoint parts of it, of which each batch takes from all.

Rows [B k / L, B (k + 1) / L) of a batch of B are the next ones of lane k of L. A process has neighbouring
rows of every batch, so that one of W processes reads whole lanes where W divides L, and a machine its own
part of the data and no other; which samples a step sees depends on neither. A lane is shuffled as in `order`,
in windows as much smaller as there are lanes: what is mixed is the same.

Lanes differ by a block at most, so that in the time of an epoch a sample of one comes as often as one of
another up to a hundredth; a small data set is one lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from reptok.data.order import WINDOW, SampleOrder, flips

LANES = 64
LANE_SAMPLES = 100_000
"""Samples of a lane, at least."""


class Lanes:
    """A shuffled, endless stream of sample indices, in batches of one size.

    Attributes:
        samples: Number of samples in all.
        lanes: The order of each lane.
    """

    def __init__(self, block_rows: Sequence[int], batch_size: int, seed: int, window: int = WINDOW):
        """Order the samples of consecutive blocks.

        Args:
            block_rows: Samples in each block of neighbours, in storage order.
            batch_size: Samples of a step.
            seed: Any integer of 0 or more; another seed is another order.
            window: Smallest number of samples that are shuffled together, over all lanes.

        Raises:
            ValueError: There is no sample.
        """
        rows = np.asarray(block_rows, np.int64)
        starts = np.concatenate([[0], np.cumsum(rows)])
        self.samples, self.seed, self.batch_size = int(starts[-1]), seed, batch_size
        count = number_of_lanes(self.samples, batch_size)
        if count == 1:
            self.lanes = [SampleOrder(rows, seed, window)]
        else:
            cuts = np.searchsorted(starts, self.samples * np.arange(count + 1) // count)
            self.lanes = [
                SampleOrder(rows[a:b], seed, max(1, window // count), starts=starts[a:b], words=(lane,))
                for lane, (a, b) in enumerate(pairwise(cuts))
            ]
        self._shares = np.diff(batch_size * np.arange(count + 1) // count)

    def take(self, position: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples at stream positions [position, position + count).

        Returns:
            Sample indices int64 (count,) in [0, samples), and the epoch of its lane for each, int64 (count,).
        """
        if len(self.lanes) == 1:
            return self.lanes[0].take(position, count)
        first, last = position // self.batch_size, -(-(position + count) // self.batch_size)
        parts = [
            lane.take(first * share, (last - first) * share)
            for lane, share in zip(self.lanes, self._shares.tolist(), strict=True)
        ]
        begin = position - first * self.batch_size
        indices, epochs = (
            np.concatenate([part[which].reshape(last - first, -1) for part in parts], axis=1).ravel()
            for which in (0, 1)
        )
        return indices[begin : begin + count], epochs[begin : begin + count]

    def window_end(self, position: int) -> int:
        """Return a stream position at which the windows that hold `position` have ended."""
        if len(self.lanes) == 1:
            return self.lanes[0].window_end(position)
        step = position // self.batch_size
        ends = [
            -(-lane.window_end(step * share) // share)
            for lane, share in zip(self.lanes, self._shares.tolist(), strict=True)
        ]
        return max(ends) * self.batch_size

    def flips(self, indices: np.ndarray, epochs: np.ndarray) -> np.ndarray:
        """Choose which samples are mirrored: bool (count,), a fair coin per (seed, epoch, sample)."""
        return flips(self.seed, indices, epochs)


def number_of_lanes(samples: int, batch_size: int) -> int:
    """Return the largest power of two that samples and batch size allow, `LANES` at most."""
    most = max(1, min(LANES, batch_size, samples // LANE_SAMPLES))
    return 1 << (most.bit_length() - 1)
