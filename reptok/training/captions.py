"""How a training reads its samples' captions: each once where that pays, or a batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reptok.text_encoder import TextEncoder

CACHED_CAPTIONS = 20_000
"""The most samples whose captions' states are kept."""
LENGTHS = 4
"""Padded lengths of captions on a GPU, where every other one is a new shape."""
EVEN = 16
"""They are multiples of this, as attention's kernels want their masks."""


class BatchedCaptions:
    """Captions to states (B, L, C) and mask (B, L), all of a batch encoded at once, for a GPU.

    What is encoded is not kept: of more captions than memory holds none comes again in time.
    """

    def __init__(self, text_encoder: TextEncoder):
        self.text_encoder = text_encoder
        step = -(-text_encoder.longest // LENGTHS)
        self._multiple = -(-step // EVEN) * EVEN

    def __deepcopy__(self, memo: dict[int, object]) -> BatchedCaptions:
        """One language model serves every copy of an objective."""
        return self

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states and mask of one of `LENGTHS` lengths L."""
        states, mask = self.text_encoder(captions, multiple=self._multiple)
        return states, mask


class CachedCaptions(BatchedCaptions):
    """Captions to states (B, L, C) and mask (B, L), each encoded alone and kept, for few of them on a CPU.

    Alone, states have the same bits whatever was encoded before, so that a resumed training is the
    uninterrupted one.
    """

    def __init__(self, text_encoder: TextEncoder):
        super().__init__(text_encoder)
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return states and mask, L the longest caption of the batch."""
        for caption in captions:
            if caption not in self._known:
                states, mask = self.text_encoder([caption])
                self._known[caption] = (states[0], mask[0])
        entries = [self._known[caption] for caption in captions]
        pad = torch.nn.utils.rnn.pad_sequence
        return (
            pad([state for state, _ in entries], batch_first=True),
            pad([mask for _, mask in entries], batch_first=True, padding_value=False),
        )


def caption_reader(text_encoder: TextEncoder, samples: int) -> BatchedCaptions:
    """Return what suits the encoder's device and a dataset of so many samples."""
    few = text_encoder.device.type == "cpu" and samples <= CACHED_CAPTIONS
    return CachedCaptions(text_encoder) if few else BatchedCaptions(text_encoder)
