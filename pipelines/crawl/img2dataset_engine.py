"""The engine `img2dataset`: its own Downloader, one per shard, for those who want exactly its behaviour."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.crawl.download import DownloadJob, Outcome
from pipelines.crawl.limits import AGENT, FetchConfig
from pipelines.crawl.phash import hashes
from pipelines.crawl.robots import REFUSING_TAGS
from pipelines.dag.rows import RowErrors
from reptok.data import columns

UNGUARDED = (
    "the engine img2dataset does not guard: it opens file:, data: and private addresses, follows redirects "
    "to them and to hosts that opted out, reads bodies of any size into memory, decodes before it judges the "
    "pixels, never reads robots.txt, has no limit on a URL's total time and ignores EXIF orientation. Use it "
    "on lists you trust."
)
THREADS = 64

_WORDS = (
    (r"HTTP Error 30\d.*redirect", "too_many_redirects"),
    (r"HTTP Error (\d{3})", "http_{}"),
    (r"X-Robots-Tag", "robots_tag"),
    (r"timed out", "timeout"),
    (r"Name or service|name resolution|No address|getaddrinfo|nodename", "dns_failed"),
    (r"refused|unreachable|No route", "connect_failed"),
    (r"CERTIFICATE|SSL", "tls_failed"),
    (r"reset|closed connection|Remote end", "connection_reset"),
    (r"IncompleteRead", "truncated"),
    (r"unknown url type|no host given|Invalid|control characters", "bad_url"),
    (r"image too small", "too_small"),
    (r"image area too large", "too_many_pixels"),
    (r"aspect ratio too large", "too_elongated"),
    (r"Image decoding error|OpenCV", "undecodable"),
)


@dataclass(frozen=True, kw_only=True)
class Img2datasetDownload(DownloadJob):
    """Hands a shard's URLs to img2dataset and brings its answer into our columns; see `UNGUARDED`.

    Attributes:
        fetch: only `attempt_seconds` (of one socket operation), `retries` and `respect_tags` apply.
    """

    fetch: FetchConfig

    def setup(self) -> None:
        """Load img2dataset, which otherwise asks the network for news of albumentations."""
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

    def obtain(self, urls: Sequence[str], errors: RowErrors) -> tuple[list[Outcome], Mapping[str, float]]:
        """Download URLs; a row that img2dataset loses failed unforeseen."""
        self.setup()
        from img2dataset.downloader import Downloader

        kept: dict[int, tuple[bytes | None, dict[str, Any]]] = {}

        class Writer:
            """What img2dataset calls a sample writer."""

            def __init__(self, *_: object) -> None:
                pass

            def write(self, image: bytes | None, key: str, caption: object, meta: dict[str, Any]) -> None:
                kept[int(key)] = (image, meta)

            def close(self) -> None:
                pass

        refusing = sorted(REFUSING_TAGS) if self.fetch.respect_tags else None
        with tempfile.TemporaryDirectory(prefix="reptok-") as folder:
            shard = Path(folder, "urls.feather")
            with pa.OSFile(str(shard), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
                writer.write_table(pa.table({"url": list(urls)}, schema=_SCHEMA))
            Downloader(
                Writer, self._resizer(), THREADS, False, False, folder, ["url"],
                max(1, round(self.fetch.attempt_seconds)), max(10, len(urls)), 1, None, None, "jpg",
                self.fetch.retries, AGENT, refusing,
            ).download_shard((0, str(shard)))  # fmt: skip

        def outcome(number: int) -> Outcome:
            try:
                return _outcome(*kept[number])
            except Exception as error:
                reason = errors.reason(urls[number], error)
            return {"status": columns.FAILED_TO_DOWNLOAD, "reason": reason}

        return [outcome(number) for number in range(len(urls))], {}

    def _resizer(self) -> Any:
        from img2dataset.resizer import Resizer

        config = self.resize
        return Resizer(
            config.image_size, config.mode, False, encode_quality=config.quality,
            min_image_size=config.min_size, max_image_area=config.max_pixels,
            max_aspect_ratio=config.max_aspect_ratio,
        )  # fmt: skip


_SCHEMA = pa.schema([("url", pa.string())])


def reason_of(message: str) -> str:
    """An error message of img2dataset in the words of the vocabulary."""
    for pattern, reason in _WORDS:
        if match := re.search(pattern, message):
            return reason.format(*match.groups())
    return "engine_failed"


def _outcome(jpg: bytes | None, meta: Mapping[str, Any]) -> Outcome:
    if jpg is None:
        return {"status": meta["status"], "reason": reason_of(meta["error_message"] or "")}
    size = {name: meta[name] for name in ("width", "height", "original_width", "original_height")}
    return {
        "status": columns.SUCCESS,
        "reason": None,
        "jpg": jpg,
        **size,
        **hashes(jpg),
    }
