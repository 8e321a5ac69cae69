"""What a generator batch is conditioned on: labels, or captions, each encoded once."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor

from reptok.data.batch import GeneratorBatch
from reptok.generator.conditioning import Condition
from reptok.text_encoder import TextEncoder

CACHED_CAPTIONS = 20_000


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
    """Condition on the samples' captions; the latest `capacity` different captions are encoded once."""

    def __init__(self, text_encoder: TextEncoder, capacity: int = CACHED_CAPTIONS):
        self.text_encoder, self.capacity = text_encoder, capacity
        self._on_cpu = text_encoder.device.type == "cpu"
        self._known: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, object]) -> CaptionConditions:
        """One language model and one cache serve every copy of an objective."""
        return self

    @torch.no_grad()
    def __call__(self, batch: GeneratorBatch) -> Condition:
        """Return text states (B, L, C) and mask (B, L), L the longest caption of the batch."""
        wanted = dict.fromkeys(batch.captions)
        missing = [caption for caption in wanted if caption not in self._known]
        # Alone on the CPU: states then have the same bits whatever was cached before, so that a resumed
        # training is the uninterrupted one. On a GPU one call for all is faster by far.
        groups = [[caption] for caption in missing] if self._on_cpu else [missing] if missing else []
        for group in groups:
            states, masks = self.text_encoder(group)
            for caption, state, mask in zip(group, states, masks, strict=True):
                length = int(mask.nonzero().max()) + 1 if bool(mask.any()) else 1
                self._known[caption] = (state[:length].clone(), mask[:length].clone())
        for caption in wanted:
            self._known.move_to_end(caption)
        entries = [self._known[caption] for caption in batch.captions]
        while len(self._known) > self.capacity:
            self._known.popitem(last=False)
        pad = torch.nn.utils.rnn.pad_sequence
        return Condition(
            text=pad([state for state, _ in entries], batch_first=True),
            mask=pad([mask for _, mask in entries], batch_first=True, padding_value=False),
        )
