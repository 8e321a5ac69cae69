"""What a generator batch is conditioned on: labels, or captions."""

from __future__ import annotations

import torch
from torch import Tensor

from reptok.data.batch import GeneratorBatch
from reptok.generator.conditioning import Condition
from reptok.text_encoder import TextEncoder

CACHED_CAPTIONS = 20_000
"""The most samples whose captions' states are kept."""
LENGTHS = 4
"""Padded lengths of captions on a GPU, where every other one is a new shape."""
EVEN = 16
"""They are multiples of this, as attention's kernels want their masks."""


def label_condition(batch: GeneratorBatch) -> Condition:
    """Condition on the samples' classes.

    Raises:
        ValueError: A sample has no label.
    """
    if bool((batch.labels < 0).any()):
        raise ValueError(
            "the dataset has samples without a label, which generator.condition=class needs; import_images "
            "labels them by their folders"
        )
    return Condition(labels=batch.labels)


def no_condition(batch: GeneratorBatch) -> Condition:
    """Condition on nothing."""
    return Condition()


class CaptionConditions:
    """Condition on the samples' captions, all of a batch encoded at once, for a GPU.

    What is encoded is not kept: of more captions than memory holds none comes again in time.
    """

    def __init__(self, text_encoder: TextEncoder):
        self.text_encoder = text_encoder
        step = -(-text_encoder.longest // LENGTHS)
        self._multiple = -(-step // EVEN) * EVEN

    def __deepcopy__(self, memo: dict[int, object]) -> CaptionConditions:
        """One language model serves every copy of an objective."""
        return self

    @torch.no_grad()
    def __call__(self, batch: GeneratorBatch) -> Condition:
        """Return text states (B, L, C) and mask (B, L) of one of `LENGTHS` lengths L."""
        states, mask = self.text_encoder(batch.captions, multiple=self._multiple)
        return Condition(text=states, mask=mask)


class CachedCaptions(CaptionConditions):
    """Condition on the samples' captions, each encoded alone and kept, for few of them on a CPU.

    Alone, states have the same bits whatever was encoded before, so that a resumed training is the
    uninterrupted one.
    """

    def __init__(self, text_encoder: TextEncoder):
        super().__init__(text_encoder)
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, batch: GeneratorBatch) -> Condition:
        """Return text states (B, L, C) and mask (B, L), L the longest caption of the batch."""
        for caption in batch.captions:
            if caption not in self._known:
                states, mask = self.text_encoder([caption])
                self._known[caption] = (states[0], mask[0])
        entries = [self._known[caption] for caption in batch.captions]
        pad = torch.nn.utils.rnn.pad_sequence
        return Condition(
            text=pad([state for state, _ in entries], batch_first=True),
            mask=pad([mask for _, mask in entries], batch_first=True, padding_value=False),
        )


def caption_conditions(text_encoder: TextEncoder, samples: int) -> CaptionConditions:
    """Return what suits the encoder's device and a dataset of so many samples."""
    few = text_encoder.device.type == "cpu" and samples <= CACHED_CAPTIONS
    return CachedCaptions(text_encoder) if few else CaptionConditions(text_encoder)
