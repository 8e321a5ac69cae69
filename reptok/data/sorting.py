"""A shard's samples in the order of their keys; pictures wait on the disk if they are many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from tempfile import SpooledTemporaryFile

from reptok.data.shards import Sample

IN_MEMORY = 64 << 20
"""Bytes of pictures that wait in memory."""


def by_key(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield samples in the order of their keys, once the last one has come."""
    with SpooledTemporaryFile(IN_MEMORY) as pictures:
        waiting = []
        for sample in samples:
            waiting.append((replace(sample, jpg=b""), pictures.tell(), len(sample.jpg)))
            pictures.write(sample.jpg)
        for sample, place, size in sorted(waiting, key=lambda entry: entry[0].key):
            pictures.seek(place)
            yield replace(sample, jpg=pictures.read(size))
