"""Positioned reads from many files through few descriptors.

Threads share a file, as nobody seeks in it; a disk that fails raises an OSError, where a memory map would end
the process; and a read fetches what it asks for, where a map fetches what lies around it, too.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

OPEN_FILES = 64
PIECE = 1 << 17
"""Bytes. Parts nearer than that are fetched as one; Linux fetches at most as much when it is asked once."""


class Descriptor:
    """Open until nobody refers to it: those that read from it outlive its place among the open files."""

    def __init__(self, path: Path):
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class File:
    """A file that stays as it is while it is read; any number of them keep `OPEN_FILES` descriptors open."""

    def __init__(self, path: Path):
        """Read from `path`, which is opened at its first use, and again where others were used since."""
        self.path = path

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on.

        Raises:
            OSError: The file cannot be read.
            ValueError: It ends before.
        """
        file = _open(self)  # referred to while it is read: others may take its place among the open files
        data = os.pread(file.number, size, offset)
        if len(data) != size:
            raise self._cut(size, offset)
        return data

    def read_rows(self, array: np.ndarray, places: np.ndarray, offsets: np.ndarray) -> None:
        """Fill rows of an array.

        Args:
            array: (n, ...), contiguous.
            places: Which rows, int (k,).
            offsets: Where the bytes of each begin in the file, int (k,).

        Raises:
            OSError: The file cannot be read.
            ValueError: It ends before.
        """
        file, bytes_of = _open(self), array.reshape(len(array), -1).data.cast("B")
        number, size = file.number, len(bytes_of) // len(array)
        for place, offset in zip((places * size).tolist(), offsets.tolist(), strict=True):
            if os.preadv(number, [bytes_of[place : place + size]], offset) != size:
                raise self._cut(size, offset)

    def fetch(self, offsets: np.ndarray, sizes: np.ndarray) -> None:
        """Let the system read parts into its cache, while this process goes on; a hint and no more.

        Args:
            offsets: Where each begins, int (k,).
            sizes: Their bytes, int (k,).

        Raises:
            OSError: The file cannot be opened.
        """
        if not hasattr(os, "posix_fadvise"):
            return
        file, order = _open(self), np.argsort(offsets)
        starts, ends = offsets[order], (offsets + sizes)[order]
        first = np.flatnonzero(np.append(True, starts[1:] - ends[:-1] > PIECE))
        last = np.append(first[1:], len(starts)) - 1
        for start, end in zip(starts[first].tolist(), ends[last].tolist(), strict=True):
            for piece in range(start, end, PIECE):
                os.posix_fadvise(file.number, piece, min(PIECE, end - piece), os.POSIX_FADV_WILLNEED)

    def _cut(self, size: int, offset: int) -> ValueError:
        return ValueError(
            f"{self.path} ends within the {size} bytes at {offset}: it was cut since it was opened; "
            "rerun the stage that made it"
        )


@lru_cache(OPEN_FILES)
def _open(file: File) -> Descriptor:
    return Descriptor(file.path)
