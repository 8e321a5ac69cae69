"""A worker's URLs wait for their hosts' turns: one question at a time for all that wait for the same."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
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
        self._queues: dict[tuple[str, str], deque[_Waiting]] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._paused: dict[str, float] = {}
        self._questions: list[tuple[Asked, asyncio.Future[Given]]] = []

    async def wait(self, host: str, address: str, seconds: float) -> bool:
        """Wait for a turn of a host at an address; False, soon or late, if none comes within so long."""
        end = time.monotonic() + seconds
        while True:
            delay = await self._turn(host, address, end)
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

    async def _turn(self, host: str, address: str, end: float) -> float | None:
        """In how many seconds the next turn comes; None if it does not before the end."""
        key = (host, address)
        if not self._remote and key not in self._queues:
            (given,) = self._source.take([(host, address, 1)])
            if given.turns:
                return float(given.turns[0])
        if key not in self._queues:
            self._queues[key] = deque()
            pump = asyncio.create_task(self._pump(key))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)
        waiting = _Waiting(end, asyncio.get_running_loop().create_future())
        self._queues[key].append(waiting)
        try:
            async with asyncio.timeout(end - time.monotonic()):
                return await waiting.turn
        except TimeoutError:
            return None

    async def _pump(self, key: tuple[str, str]) -> None:
        """Take turns for those who wait for the same, until nobody does."""
        queue = self._queues[key]
        try:
            while True:
                while queue and queue[0].turn.done():  # it has given up
                    queue.popleft()
                if not queue:
                    return
                given = await self._ask((*key, len(queue)))
                for delay in given.turns:
                    while queue and queue[0].turn.done():
                        queue.popleft()
                    if queue:
                        queue.popleft().turn.set_result(delay)
                if given.again:
                    _tell_those_in_vain(queue, given)
                    await asyncio.sleep(given.again if queue else 0)
        except Exception as error:
            for waiting in queue:
                if not waiting.turn.done():
                    waiting.turn.set_exception(error)
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
            answers = await self._source.take([question for question, _ in questions])
        except Exception as error:
            for _, answer in questions:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), given in zip(questions, answers, strict=True):
            if not answer.done():
                answer.set_result(given)


@dataclass
class _Waiting:
    """Who waits, until when (by the monotonic clock)."""

    end: float
    turn: asyncio.Future[float | None]


def _tell_those_in_vain(queue: deque[_Waiting], given: Given) -> None:
    """Give up at once for all whose turn cannot come in their time: turns may come later, never sooner."""
    turn, hopeful = time.monotonic() + given.again, []
    for waiting in queue:
        if waiting.turn.done():
            continue
        if waiting.end < turn:
            waiting.turn.set_result(None)
        else:
            hopeful.append(waiting)
            turn += given.apart
    queue.clear()
    queue.extend(hopeful)
