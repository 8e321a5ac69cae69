"""Download one shard of URLs: fetch, decode, resize, and a row for every URL, whatever became of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.dag.artifact import Artifact
from pipelines.dag.shards import Shard, ShardJob
from pipelines.dag.workspace import Workspace
from pipelines.ops.fetch import Fetcher
from pipelines.ops.manners import FetchConfig
from pipelines.ops.reasons import Failure
from pipelines.ops.resize import ResizeConfig, resize
from reptok.data import columns

PASSED_ON = ("key", "url", "text", "split", "label", "subject")
DECODE_THREADS = 2

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DownloadJob(ShardJob):
    """From a file of the `urls` artifact (the payload's "file") to one of the same number with images.

    The rows keep their order, and no column depends on time: the same answers give the same bytes.

    Attributes:
        urls: the `urls` artifact.
        fetch: limits and manners.
        resize: what an image must be, and what is made of it.
        overrides: host to "address:port" that serves it now; no part of the shards' plan.
    """

    urls: Artifact
    fetch: FetchConfig
    resize: ResizeConfig
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, shard: Shard, out: Workspace) -> Mapping[str, float]:
        """Download the shard; the stats hold `images_ok` and a `failed_<reason>` for each reason."""
        name = shard.payload["file"]
        with self.urls.open(name) as file:
            table = columns.read_table(file, columns.URLS, name, columns=PASSED_ON)
        rows = asyncio.run(self.download(table.to_pylist()))
        with out.create(f"images-{shard.index:05d}.parquet") as target:
            written = columns.write_table(target, rows, columns.IMAGES)  # type: ignore[arg-type]
        reasons = Counter(f"failed_{row['reason']}" for row in rows if row["reason"])
        ok = sum(row["status"] == columns.SUCCESS for row in rows)
        return {"rows_in": table.num_rows, "rows_out": written, "images_ok": ok, **reasons}

    async def download(self, rows: list[Row]) -> list[Row]:
        """Download all rows, some at a time, and return them in their order with the columns of `IMAGES`."""
        slots = asyncio.Semaphore(self.fetch.concurrency)
        with ThreadPoolExecutor(DECODE_THREADS) as threads:
            async with Fetcher(self.fetch, self.overrides) as fetcher:

                async def one(row: Row) -> Row:
                    async with slots:
                        return {**row, **await self._download(row["url"], fetcher, threads)}

                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(row)) for row in rows]
        return [task.result() for task in tasks]

    async def _download(self, url: str, fetcher: Fetcher, threads: ThreadPoolExecutor) -> Row:
        result = await fetcher.fetch(url)
        outcome: Row = {"status": columns.FAILED, "reason": result.reason, "final_url": result.final_url}
        if result.reason:
            return outcome
        decode = asyncio.get_running_loop().run_in_executor(threads, resize, result.body, self.resize)
        try:
            return {**outcome, "status": columns.SUCCESS, "reason": None, **asdict(await decode)}
        except Failure as failure:
            return {**outcome, "reason": failure.reason}
