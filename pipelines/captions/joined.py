"""Captions that another table holds, found by what it calls a sample; millions of them in little memory.

texts.arrow   names and captions in the order of the table, in batches of `BATCH`, memory-mapped by readers
names.npy     64 bits of each name's hash and its row, sorted by hash
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pipelines.sources.source import clean_caption

TEXTS, NAMES = "texts.arrow", "names.npy"
BATCH = 1 << 16
_SCHEMA = pa.schema([("name", pa.large_string()), ("text", pa.large_string())])
_INDEX = np.dtype([("hash", "<u8"), ("row", "<u8")])


def write_texts(rows: Iterable[tuple[Any, Any]], texts: BinaryIO, names: BinaryIO) -> tuple[int, int]:
    """Write both files.

    Args:
        rows: Name and caption of each sample, as the table has them; of a name that comes again the first
            counts.
        texts: File of that name, open for writing.
        names: Likewise.

    Returns:
        Rows that have a name and a caption, and rows that lack one.
    """
    hashes: list[np.ndarray] = []
    kept: list[tuple[str, str]] = []
    missing = 0
    with pa.ipc.new_file(texts, _SCHEMA) as file:

        def flush() -> None:
            columns = [pa.array([row[column] for row in kept], pa.large_string()) for column in (0, 1)]
            file.write_batch(pa.record_batch(columns, schema=_SCHEMA))
            hashes.append(np.array([_hash(name) for name, _ in kept], "<u8"))
            kept.clear()

        for name, text in rows:
            caption = clean_caption(text)
            if name is None or not caption:
                missing += 1
                continue
            kept.append((str(name), caption))
            if len(kept) == BATCH:
                flush()
        if kept:
            flush()
    index = np.empty(sum(map(len, hashes)), _INDEX)
    index["hash"] = np.concatenate([*hashes, np.empty(0, "<u8")])
    index["row"] = np.arange(len(index))
    index = index[np.argsort(index["hash"], kind="stable")]
    np.save(names, index, allow_pickle=False)
    return len(index), missing


class JoinedTexts:
    """The captions that `write_texts` left in a folder."""

    def __init__(self, folder: Path) -> None:
        self._index = np.load(folder / NAMES, mmap_mode="r", allow_pickle=False)
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / TEXTS)))

    def __len__(self) -> int:
        return len(self._index)

    def get(self, names: Sequence[str]) -> str | None:
        """The caption of a sample by the first of its names that the table has; None if it has none."""
        for name in names:
            code = np.uint64(_hash(name))
            place = int(np.searchsorted(self._index["hash"], code))
            while place < len(self._index) and self._index["hash"][place] == code:
                batch, row = divmod(int(self._index["row"][place]), BATCH)
                columns = self._file.get_batch(batch)
                if columns.column(0)[row].as_py() == name:
                    return str(columns.column(1)[row].as_py())
                place += 1
        return None


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")
