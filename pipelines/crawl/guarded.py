"""The engine `guarded`: our own fetch, safe against hostile lists, and img2dataset's resize."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from pipelines.crawl.budget import Budget
from pipelines.crawl.download import DownloadJob, Outcome
from pipelines.crawl.known import Memory
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.memory import MemoryBudget
from pipelines.crawl.names import Names
from pipelines.crawl.reasons import Failure, may_heal
from pipelines.crawl.resize import Picture, resize
from pipelines.crawl.shared import NodeNames, SharedBudget, shared_budget
from pipelines.dag.rows import RowErrors
from reptok.data import columns

if TYPE_CHECKING:
    from pipelines.crawl.fetch import Fetcher

DECODE_THREADS = 2


@dataclass(frozen=True, kw_only=True)
class GuardedDownload(DownloadJob):
    """Downloads on one event loop, with a few threads that decode and resize.

    Attributes:
        fetch: limits of fetching.
        overrides: host to "address:port" that serves it now; no part of the shards' plan.
        memory: what this worker knows about hosts, from shard to shard.
        budget: gives out turns to all workers; None for one of this worker's own.
    """

    fetch: FetchConfig
    overrides: Mapping[str, str] = field(default_factory=dict)
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)
    budget: SharedBudget | Budget | None = field(default=None, repr=False, compare=False)

    def setup(self) -> None:
        """Silence what the decoders have to say about damaged metadata: there is much of it."""
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        if self.budget is None:
            object.__setattr__(self, "budget", Budget(self.fetch))

    @contextmanager
    def together(self) -> Iterator[Self]:
        """Share one budget among the workers, and on each machine the addresses of names."""
        with shared_budget(self.fetch) as budget:
            yield replace(self, budget=budget, memory=Memory(names=Names(NodeNames())))

    def obtain(self, urls: Sequence[str], errors: RowErrors) -> tuple[list[Outcome], Mapping[str, float]]:
        """Download URLs, some at a time; the stats count those whose host was left alone."""
        return asyncio.run(self._obtain(urls, errors))

    async def _obtain(
        self, urls: Sequence[str], errors: RowErrors
    ) -> tuple[list[Outcome], Mapping[str, float]]:
        from pipelines.crawl.fetch import Fetcher  # 0.2 s of aiohttp's, which a driver need not pay

        memory = MemoryBudget(self.resize.max_memory_bytes)
        later = 0.0 if self.overrides else self.fetch.second_pass_seconds  # a web served here does not heal
        counts: Counter[str] = Counter()
        with ThreadPoolExecutor(DECODE_THREADS) as threads:

            async def resized(body: bytes) -> Picture:
                work = partial(resize, body, self.resize, memory)
                return await asyncio.get_running_loop().run_in_executor(threads, work)

            async def download(url: str) -> Outcome:
                try:
                    outcome = await _download(url, fetcher, resized)
                    if later and may_heal(outcome["reason"] or ""):
                        counts["second_pass"] += 1
                        await asyncio.sleep(later)
                        again = await _download(url, fetcher, resized, retries=0)
                        counts["second_pass_images"] += again["status"] == columns.SUCCESS
                        outcome = {**again, "seconds": outcome["seconds"] + again["seconds"]}
                    return outcome
                except Exception as error:
                    return {"status": columns.FAILED_TO_DOWNLOAD, "reason": errors.reason(url, error)}

            async with Fetcher(
                self.fetch, self.overrides, self.memory, self.budget, self.opted_out
            ) as fetcher:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(download(url)) for url in urls]
                counts["not_asked_host_down"] = fetcher.spared
        return [task.result() for task in tasks], {name: n for name, n in counts.items() if n}


async def _download(
    url: str,
    fetcher: Fetcher,
    resized: Callable[[bytes], Awaitable[Picture]],
    retries: int | None = None,
) -> Outcome:
    async with fetcher.fetched(url, retries) as result:
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
    known = {name: value for name, value in asdict(picture).items() if value is not None}
    return {**outcome, "status": columns.SUCCESS, "reason": None, **known}
