"""The engine `guarded`: our own fetch, safe against hostile lists, and img2dataset's resize."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from pipelines.crawl.download import DownloadJob, Outcome
from pipelines.crawl.fetch import Fetcher, Memory
from pipelines.crawl.manners import FetchConfig
from pipelines.crawl.reasons import Failure
from pipelines.crawl.resize import resize
from reptok.data import columns

DECODE_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class GuardedDownload(DownloadJob):
    """Downloads on one event loop, with a few threads that decode and resize.

    Attributes:
        fetch: limits and manners.
        overrides: host to "address:port" that serves it now; no part of the shards' plan.
        memory: what this worker knows about hosts, from shard to shard.
    """

    fetch: FetchConfig
    overrides: Mapping[str, str] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    def setup(self) -> None:
        """Silence what the decoders have to say about damaged metadata: there is much of it."""
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

    def obtain(self, urls: Sequence[str]) -> tuple[list[Outcome], Mapping[str, float]]:
        """Download URLs, some at a time; the stats count those whose host was left alone."""
        return asyncio.run(self._obtain(urls))

    async def _obtain(self, urls: Sequence[str]) -> tuple[list[Outcome], Mapping[str, float]]:
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            async with Fetcher(self.fetch, self.overrides, memory=self.memory) as fetcher:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._download(url, fetcher, threads)) for url in urls]
                stats = {"not_asked_host_down": fetcher.spared} if fetcher.spared else {}
        return [task.result() for task in tasks], stats

    async def _download(self, url: str, fetcher: Fetcher, threads: ThreadPoolExecutor) -> Outcome:
        async with fetcher.fetched(url) as result:
            outcome: Outcome = {
                "status": columns.FAILED_TO_DOWNLOAD,
                "reason": result.reason,
                "final_url": result.final_url,
                "seconds": result.seconds,
            }
            if result.reason:
                return outcome
            loop = asyncio.get_running_loop()
            try:
                picture = await loop.run_in_executor(threads, resize, result.body, self.resize)
            except Failure as failure:
                return {**outcome, "status": columns.FAILED_TO_RESIZE, "reason": failure.reason}
        return {**outcome, "status": columns.SUCCESS, "reason": None, **asdict(picture)}
