"""Fetch bytes from untrusted URLs: politely, within limits, and from public addresses only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from pipelines.crawl import robots
from pipelines.crawl.body import read_body
from pipelines.crawl.expiring import Expiring
from pipelines.crawl.explained import explained
from pipelines.crawl.guard import AddressGuard, Lookup
from pipelines.crawl.hosts import Host, Turns
from pipelines.crawl.manners import AGENT, FetchConfig
from pipelines.crawl.reasons import Failure
from pipelines.urls.canonical import canonical_host

REDIRECTS = (301, 302, 303, 307, 308)
ROBOTS_SECONDS, ADDRESS_SECONDS = 24 * 3600.0, 300.0
"""How long a robots.txt (at most a day, says RFC 9309) and the addresses of a name are believed."""
ROBOTS_ROOM, ADDRESS_ROOM = 64 << 20, 100_000
"""How much of both a worker keeps: bytes of rules, and addresses."""
HEAD_BYTES = 1 << 20
"""What an answer may have on the wire beside its body: headers, and the lengths of chunks."""


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """What became of one URL.

    Attributes:
        reason: empty for success, else a word of the vocabulary in `reasons.py`.
        body: the bytes, empty on failure.
        final_url: the last URL on its way, after redirects; empty if it may not be asked for at all.
        seconds: spent on the network, all tries together; waiting for a turn does not count.
    """

    reason: str = ""
    body: bytes = b""
    final_url: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass
class Memory:
    """What outlives a fetcher: robots.txt by origin and, by name, the addresses that a resolver gave."""

    robots: Expiring[robots.Robots] = field(default_factory=lambda: Expiring(ROBOTS_SECONDS, ROBOTS_ROOM))
    addresses: Expiring[list[str]] = field(default_factory=lambda: Expiring(ADDRESS_SECONDS, ADDRESS_ROOM))


@dataclass
class _Try:
    """The state of one URL's way: seconds left to spend on the network, and how far it came."""

    seconds: float
    url: str = ""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Fetches many URLs; an async context manager that belongs to one event loop.

    Args:
        config: limits and manners.
        overrides: host to "address:port" that serves it (see `AddressGuard`).
        lookup: how names are resolved; the system's resolver by default.
        memory: what an earlier fetcher learned about hosts.
        opted_out: URLs that are not asked for, be it that a redirect leads to them.
    """

    def __init__(
        self,
        config: FetchConfig,
        overrides: Mapping[str, str] | None = None,
        lookup: Lookup | None = None,
        memory: Memory | None = None,
        opted_out: Container[str] = (),
    ) -> None:
        self._config = config
        self._memory = memory or Memory()
        self._opted_out = opted_out
        self._guard = AddressGuard(
            overrides,
            config.allow_hosts,
            config.allow_ports,
            max(config.max_bytes, robots.MAX_BYTES) + HEAD_BYTES,
            lookup,
            self._memory.addresses,
        )
        self._slots = asyncio.Semaphore(config.concurrency)
        self._hosts: dict[str, Host] = {}
        self._turns: dict[str, Turns] = {}
        self._asking: dict[URL, asyncio.Task[robots.Robots]] = {}

    async def __aenter__(self) -> Fetcher:
        self._session = aiohttp.ClientSession(
            connector=self._guard.connector(2 * self._config.concurrency),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={
                "User-Agent": self._config.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            auto_decompress=False,
            trust_env=False,
            max_line_size=self._config.max_header_bytes,
            max_field_size=self._config.max_header_bytes,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        await self._session.close()

    @property
    def spared(self) -> int:
        """URLs that were not asked for because their host is down."""
        return sum(host.spared for host in self._hosts.values())

    @asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[FetchResult]:
        """Fetch one URL, with retries; whatever goes wrong becomes a reason, not an exception.

        One of `concurrency` places is held while the caller works on the result, so that no more bodies are
        in memory than there are places; it is not held while the URL waits for its host's turn or for the
        next try.
        """
        way = _Try(self._config.total_seconds)
        for attempt in range(self._config.retries + 1):
            try:
                first = self._guard.parse(url)
            except Failure as failure:
                yield FetchResult(reason=failure.reason)
                return
            host = self._host(first)
            await asyncio.sleep(self._next_turn(first))
            async with self._slots:
                reason, body, again = await self._attempt(host, first, way)
                if not again or attempt == self._config.retries:
                    yield FetchResult(
                        reason=reason,
                        body=body,
                        final_url=way.url,
                        seconds=self._config.total_seconds - way.seconds,
                    )
                    return
            await asyncio.sleep(self._config.backoff_seconds * 2**attempt)

    async def fetch(self, url: str) -> FetchResult:
        """Fetch one URL and keep its body."""
        async with self.fetched(url) as result:
            return result

    async def _attempt(self, host: Host, url: URL, way: _Try) -> tuple[str, bytes, bool]:
        """Try once: the reason, the body, and whether another try may succeed."""
        try:
            host.check()
        except Failure as failure:
            way.url = str(url)
            return failure.reason, b"", False
        try:
            answer = await self._follow(url, way, self._config.max_bytes, polite=True)
        except Failure as failure:
            again = failure.transient and way.seconds > 0
            if way.url == str(url):  # not of a host that a redirect led to
                host.note(failure.reason)
            return failure.reason, b"", again
        host.note("")
        return "", answer.body, False

    def _host(self, url: URL) -> Host:
        name = str(url.origin())
        if name not in self._hosts:
            self._hosts[name] = Host(self._config)
        return self._hosts[name]

    def _next_turn(self, url: URL) -> float:
        name = canonical_host(url.raw_host or "")
        if name not in self._turns:
            self._turns[name] = Turns(self._config, name)
        return self._turns[name].next()

    async def _follow(self, url: URL, way: _Try, max_bytes: int, *, polite: bool) -> _Answer:
        """Ask for a URL and where it redirects to, judging every hop anew and in its host's turn."""
        for hop in range(self._config.max_redirects + 1):
            way.url = str(url)
            if way.url in self._opted_out:
                raise Failure("opted_out")
            if hop:
                await self._turn_elsewhere(url, holds_place=polite)
            if polite and self._config.respect_robots:
                await self._ask_robots(url)
            answer = await self._request(url, way, max_bytes, polite=polite)
            if answer.status not in REDIRECTS:
                return answer
            try:
                target = str(url.join(URL(answer.headers["Location"])))
            except (LookupError, ValueError) as error:
                raise Failure("bad_redirect") from error
            url = self._guard.parse(target)
        raise Failure("too_many_redirects")

    async def _turn_elsewhere(self, url: URL, *, holds_place: bool) -> None:
        """Wait for the turn of a redirect's target; another URL may have this one's place meanwhile."""
        seconds = self._next_turn(url)
        if not seconds:
            return
        if holds_place:
            self._slots.release()
        try:
            await asyncio.sleep(seconds)
        finally:
            if holds_place:
                await self._slots.acquire()

    async def _request(self, url: URL, way: _Try, max_bytes: int, *, polite: bool) -> _Answer:
        """Make one request, within the time that is left; the body of a redirect is not read."""
        get = self._session.get
        slots = self._host(url).slots
        async with slots, self._timed(way) as body, explained(), get(url, allow_redirects=False) as response:
            tags = response.headers.getall("X-Robots-Tag", [])
            if polite and self._config.respect_tags and robots.refused_by_tag(tags, AGENT):
                raise Failure("robots_tag")
            if response.status in REDIRECTS:
                return _Answer(response.status, response.headers, b"")
            if response.status != 200:
                raise Failure(f"http_{response.status}", transient=response.status >= 500)
            body.begun = True
            body_bytes = await read_body(response, max_bytes, cut=not polite)
            return _Answer(200, response.headers, body_bytes)

    async def _ask_robots(self, url: URL) -> None:
        origin = url.origin()
        rules = self._memory.robots.get(str(origin))
        if rules is None:
            if origin not in self._asking:
                self._asking[origin] = asyncio.create_task(self._fetch_robots(origin))
            task = self._asking[origin]
            try:
                rules = await asyncio.shield(task)
            except Failure as failure:
                if failure.transient and self._asking.get(origin) is task:
                    del self._asking[origin]
                raise
            if self._asking.get(origin) is task:
                del self._asking[origin]
        if not rules.allows(url.raw_path_qs):
            raise Failure("robots_disallowed")

    async def _fetch_robots(self, origin: URL) -> robots.Robots:
        """Fetch and keep a host's rules: no file allows all, a server error forbids all (RFC 9309)."""
        way = _Try(self._config.attempt_seconds)
        try:
            answer = await self._follow(origin / "robots.txt", way, robots.MAX_BYTES, polite=False)
            rules = robots.parse_robots(robots.text_of(answer.body), AGENT)
        except Failure as failure:
            if failure.reason.startswith("http_5"):
                raise Failure("robots_unreachable", transient=True) from failure
            if not (failure.reason.startswith("http_") or failure.reason == "too_many_redirects"):
                raise
            rules = robots.Robots()
        self._memory.robots.put(str(origin), rules, rules.size)
        return rules

    @asynccontextmanager
    async def _timed(self, way: _Try) -> AsyncIterator[_Progress]:
        """Bound the time of a request; one that ends within the body is not worth another try."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        progress = _Progress()
        try:
            async with asyncio.timeout(max(0.0, min(self._config.attempt_seconds, way.seconds))):
                yield progress
        except TimeoutError:
            raise Failure("timeout", transient=not progress.begun) from None
        finally:
            way.seconds -= clock() - begin


@dataclass
class _Progress:
    """Whether a request came as far as its body."""

    begun: bool = False
