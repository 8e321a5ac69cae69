"""A worker's URLs wait for their hosts' turns: one question at a time for all that wait for the same."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Protocol

from pipelines.crawl.budget import Asked, Given

GATHER_SECONDS = 0.01
"""How long questions are gathered before they go to another process."""


class Source(Protocol):
    """A budget: `Budget`, or a handle of one in another process (`remote`)."""

    def take(self, asked: list[Asked]) -> Any: ...
    def slow(self, host: str, seconds: float) -> Any: ...
    def pause(self, host: str, seconds: float) -> Any: ...


class Turns:
    """Waits for turns; belongs to one event loop.

    Args:
        source: where they come from.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._remote = hasattr(source, "remote")
        self._queues: dict[tuple[str, str], deque[asyncio.Future[float]]] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._paused: dict[str, float] = {}
        self._questions: list[tuple[Asked, asyncio.Future[Given]]] = []

    async def wait(self, host: str, address: str, seconds: float) -> bool:
        """Wait for a turn of a host at an address; False if none came within so long."""
        end = time.monotonic() + seconds
        while True:
            delay = await self._turn(host, address, end - time.monotonic())
            if delay is None:
                return False
            if delay:
                await asyncio.sleep(delay)
            if self._paused.get(host, 0.0) <= time.monotonic():
                return True  # else it was given before the host asked for a pause

    async def slow(self, host: str, seconds: float) -> None:
        """Keep to a host's Crawl-delay."""
        found = self._source.slow(host, seconds)
        if self._remote:
            await found

    async def pause(self, host: str, seconds: float) -> None:
        """Leave a host alone for so long."""
        self._paused[host] = max(self._paused.get(host, 0.0), time.monotonic() + seconds)
        found = self._source.pause(host, seconds)
        if self._remote:
            await found

    async def close(self) -> None:
        """Nobody waits any more."""
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _turn(self, host: str, address: str, seconds: float) -> float | None:
        """In how many seconds the next turn comes."""
        key = (host, address)
        if not self._remote and key not in self._queues:
            ((turns, _),) = self._source.take([(host, address, 1)])
            if turns:
                return float(turns[0])
        if key not in self._queues:
            self._queues[key] = deque()
            pump = asyncio.create_task(self._pump(key))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        waiting: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queues[key].append(waiting)
        try:
            async with asyncio.timeout(seconds):
                return await waiting
        except TimeoutError:
            return None

    async def _pump(self, key: tuple[str, str]) -> None:
        """Take turns for those who wait for the same, until nobody does."""
        queue = self._queues[key]
        try:
            while True:
                while queue and queue[0].done():  # it has given up
                    queue.popleft()
                if not queue:
                    return
                turns, again = await self._ask((*key, len(queue)))
                for delay in turns:
                    while queue and queue[0].done():
                        queue.popleft()
                    if queue:
                        queue.popleft().set_result(delay)
                if again:
                    await asyncio.sleep(again)
        except Exception as error:
            for waiting in queue:
                if not waiting.done():
                    waiting.set_exception(error)
        finally:
            del self._queues[key]

    async def _ask(self, question: Asked) -> Given:
        if not self._remote:
            (given,) = self._source.take([question])
            return given  # type: ignore[no-any-return]
        answer: asyncio.Future[Given] = asyncio.get_running_loop().create_future()
        if not self._questions:
            flush = asyncio.create_task(self._flush())
            self._pumps.add(flush)
            flush.add_done_callback(self._pumps.discard)
        self._questions.append((question, answer))
        return await answer

    async def _flush(self) -> None:
        """Send the questions of a moment as one message."""
        await asyncio.sleep(GATHER_SECONDS)
        questions, self._questions = self._questions, []
        try:
            given = await self._source.take([question for question, _ in questions])
        except Exception as error:
            for _, answer in questions:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), turns in zip(questions, given, strict=True):
            if not answer.done():
                answer.set_result(turns)
