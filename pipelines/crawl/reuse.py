"""What an earlier download found: its rows by URL, so that a later one asks only for what may be better."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.crawl.reasons import may_heal
from pipelines.dag.artifact import Artifact
from pipelines.dag.storage import many
from reptok.data import columns

TAKEN_OVER = (
    "status", "reason", "jpg", "width", "height", "original_width", "original_height", "sha256", "phash",
    "final_url", "exif",
)  # fmt: skip


def url_hash(url: str) -> int:
    """64 bits of a URL's digest."""
    return int.from_bytes(hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class EarlierFiles:
    """Which files of an `images` artifact hold a URL; 12 bytes of memory per row.

    Args:
        images: the artifact.
    """

    def __init__(self, images: Artifact) -> None:
        self.names = images.files("images-*.parquet")

        def hashes_of(name: str) -> np.ndarray:
            with images.open(name) as file:
                urls = columns.read_table(file, columns.IMAGES, name, columns=["url"]).column("url")
            return np.array([url_hash(url) for url in urls.to_pylist()], np.uint64)

        hashes, files = [np.empty(0, np.uint64)], [np.empty(0, np.uint32)]
        for number, found in enumerate(many(hashes_of, self.names)):
            hashes.append(found)
            files.append(np.full(len(found), number, np.uint32))
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        self._hashes, self._files = joined[order], np.concatenate(files)[order]

    def holding(self, urls: Iterable[str]) -> list[str]:
        """Names of the files that hold some of these URLs, sorted."""
        wanted = np.array([url_hash(url) for url in urls], np.uint64)
        place = np.searchsorted(self._hashes, wanted)
        inside = place < len(self._hashes)
        place, wanted = place[inside], wanted[inside]
        found = np.unique(self._files[place[self._hashes[place] == wanted]])
        return [self.names[number] for number in found]


def earlier_outcomes(
    images: Artifact,
    names: Sequence[str],
    urls: set[str],
    taken: Sequence[str] = TAKEN_OVER,
    healing: bool = False,
) -> dict[str, dict[str, Any]]:
    """The rows of some files, by URL, that are taken over as they are: images, and failures that last.

    Args:
        images: The artifact.
        names: Files of it.
        urls: The URLs that are asked for.
        taken: Columns.
        healing: Also failures that may heal.
    """
    found = {}
    for name in names:
        with images.open(name) as file:
            for row in columns.iterate_rows(file, columns.IMAGES, name, ["url", *taken]):
                url = row.pop("url")
                lasts = row["status"] == columns.SUCCESS or not may_heal(row["reason"])
                if url in urls and (lasts or healing):
                    found[url] = row
    return found
