"""What the robots.txt of an origin allows; it is fetched once for all URLs that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from yarl import URL

from pipelines.crawl import robots
from pipelines.crawl.expiring import Expiring
from pipelines.crawl.limits import AGENT
from pipelines.crawl.reasons import Failure

Fetch = Callable[[URL], Awaitable[bytes]]
"""Gives the body of a robots.txt, or raises Failure."""
Slow = Callable[[URL, float], Awaitable[None]]
"""Is told the origin and its Crawl-delay in seconds."""


class Permission:
    """Asks and keeps robots.txt; belongs to one event loop.

    Args:
        known: rules by origin, which outlive this.
        fetch: how one is fetched.
        slow: what a Crawl-delay means.
    """

    def __init__(self, known: Expiring[robots.Robots], fetch: Fetch, slow: Slow) -> None:
        self._known, self._fetch, self._slow = known, fetch, slow
        self._asking: dict[URL, asyncio.Task[robots.Robots]] = {}

    async def check(self, url: URL) -> None:
        """Pass if a URL may be asked for.

        Raises:
            Failure: robots_disallowed, robots_unreachable, or why robots.txt could not be asked for.
        """
        rules = await self._rules(url.origin())
        if not rules.allows(url.raw_path_qs):
            raise Failure("robots_disallowed")

    async def close(self) -> None:
        """Nobody waits any more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _rules(self, origin: URL) -> robots.Robots:
        if (rules := self._known.get(str(origin))) is not None:
            return rules
        if origin not in self._asking:
            self._asking[origin] = asyncio.create_task(self._ask(origin))
        task = self._asking[origin]
        try:
            rules = await asyncio.shield(task)
        except Failure as failure:
            if failure.transient and self._asking.get(origin) is task:
                del self._asking[origin]
            raise
        if self._asking.get(origin) is task:
            del self._asking[origin]
        return rules

    async def _ask(self, origin: URL) -> robots.Robots:
        """Fetch and keep a host's rules: no file allows all, a server error forbids all (RFC 9309)."""
        try:
            rules = robots.parse_robots(robots.text_of(await self._fetch(origin / "robots.txt")), AGENT)
        except Failure as failure:
            if failure.reason.startswith("http_5") or failure.reason == "http_429":
                raise Failure("robots_unreachable", transient=True) from failure
            if not (failure.reason.startswith("http_") or failure.reason == "too_many_redirects"):
                raise
            rules = robots.Robots()
        if rules.crawl_delay:
            await self._slow(origin, rules.crawl_delay)
        self._known.put(str(origin), rules, rules.size)
        return rules
