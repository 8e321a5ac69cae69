"""The engine `guarded`: our own fetch, safe against hostile lists, and img2dataset's resize."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial

from pipelines.crawl.download import DownloadJob, Outcome
from pipelines.crawl.fetch import Fetcher, Memory
from pipelines.crawl.manners import FetchConfig
from pipelines.crawl.memory import MemoryBudget
from pipelines.crawl.reasons import Failure
from pipelines.crawl.resize import Picture, resize
from pipelines.dag.rows import RowErrors
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

    def obtain(self, urls: Sequence[str], errors: RowErrors) -> tuple[list[Outcome], Mapping[str, float]]:
        """Download URLs, some at a time; the stats count those whose host was left alone."""
        return asyncio.run(self._obtain(urls, errors))

    async def _obtain(
        self, urls: Sequence[str], errors: RowErrors
    ) -> tuple[list[Outcome], Mapping[str, float]]:
        memory = MemoryBudget(self.resize.max_memory_bytes)
        with ThreadPoolExecutor(DECODE_THREADS) as threads:

            async def resized(body: bytes) -> Picture:
                work = partial(resize, body, self.resize, memory)
                return await asyncio.get_running_loop().run_in_executor(threads, work)

            async def download(url: str) -> Outcome:
                try:
                    return await _download(url, fetcher, resized)
                except Exception as error:
                    return {"status": columns.FAILED_TO_DOWNLOAD, "reason": errors.reason(url, error)}

            async with Fetcher(
                self.fetch, self.overrides, memory=self.memory, opted_out=self.opted_out
            ) as fetcher:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(download(url)) for url in urls]
                stats = {"not_asked_host_down": fetcher.spared} if fetcher.spared else {}
        return [task.result() for task in tasks], stats


async def _download(url: str, fetcher: Fetcher, resized: Callable[[bytes], Awaitable[Picture]]) -> Outcome:
    async with fetcher.fetched(url) as result:
        outcome: Outcome = {
            "status": columns.FAILED_TO_DOWNLOAD,
            "reason": result.reason,
            "final_url": result.final_url,
            "seconds": result.seconds,
        }
        if result.reason:
            return outcome
        try:
            picture = await resized(result.body)
        except Failure as failure:
            return {**outcome, "status": columns.FAILED_TO_RESIZE, "reason": failure.reason}
    return {**outcome, "status": columns.SUCCESS, "reason": None, **asdict(picture)}
