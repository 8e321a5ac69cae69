"""Fetch bytes from untrusted URLs: politely, within limits, and from public addresses only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from pipelines.crawl import robots
from pipelines.crawl.body import read_body
from pipelines.crawl.budget import Budget
from pipelines.crawl.errors import failures
from pipelines.crawl.guard import AddressGuard, AddressRefused
from pipelines.crawl.hosts import Circuit
from pipelines.crawl.known import Memory
from pipelines.crawl.limits import AGENT, FetchConfig
from pipelines.crawl.permission import Permission
from pipelines.crawl.reasons import Failure
from pipelines.crawl.turns import Source, Turns
from pipelines.crawl.way import Way
from pipelines.dag.rows import is_ours
from pipelines.urls.canonical import canonical_host

REDIRECTS = (301, 302, 303, 307, 308)
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


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Fetches many URLs; an async context manager that belongs to one event loop.

    Args:
        config: limits of fetching.
        overrides: host to "address:port" that serves it (see `AddressGuard`).
        memory: what an earlier fetcher learned about hosts.
        budget: gives out turns; one of its own by default.
        opted_out: URLs that are not asked for, be it that a redirect leads to them.

    Attributes:
        spared: URLs that were not asked for because their host is down.
    """

    def __init__(
        self,
        config: FetchConfig,
        overrides: Mapping[str, str] | None = None,
        memory: Memory | None = None,
        budget: Source | None = None,
        opted_out: Container[str] = (),
    ) -> None:
        self._config = config
        self._memory = memory or Memory()
        self._opted_out = opted_out
        most_bytes = max(config.max_bytes, robots.MAX_BYTES) + HEAD_BYTES
        self._guard = AddressGuard(
            overrides, config.allow_hosts, config.allow_ports, most_bytes, self._memory.names
        )
        served = (*(overrides or ()), *config.allow_hosts)
        self._served = frozenset(map(canonical_host, served))
        self._slots = asyncio.Semaphore(config.concurrency)
        self._places: dict[str, asyncio.Semaphore] = {}
        self._turns = Turns(budget or Budget(config))
        self._permission = Permission(self._memory.robots, self._fetch_robots, self._slow)
        self.spared = 0

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
        await self._permission.close()
        await self._turns.close()
        await self._session.close()

    @asynccontextmanager
    async def fetched(self, url: str, retries: int | None = None) -> AsyncIterator[FetchResult]:
        """Fetch one URL; whatever goes wrong becomes a reason, not an exception.

        One of `concurrency` places is held while the caller works on the result, so that no more bodies are
        in memory than there are places; it is not held while the URL waits for its host's turn, its
        robots.txt or the next try.

        Args:
            url: what to fetch.
            retries: further tries; those of the configuration by default.
        """
        way, left = Way(self._config.total_seconds), self._config.retries if retries is None else retries
        pause, reason = self._config.backoff_seconds, ""
        while True:
            try:
                first = self._guard.parse(url)
                way.url = str(first)
                passed = self._check(first)
            except Failure as failure:
                yield self._result(way, failure.reason)
                return
            try:
                await self._admit(first)
            except Failure as failure:
                if failure.reason != "host_busy":
                    reason = failure.reason
                    self._circuit(first).note(reason)
                if not (failure.transient and left):
                    reason = reason or failure.reason
                    yield self._result(way, reason)
                    return
            else:
                async with self._slots:
                    reason, body, again = await self._attempt(first, way, passed)
                    if not again or not left:
                        yield self._result(way, reason, body)
                        return
            left -= 1
            await asyncio.sleep(pause)
            pause *= 2

    async def fetch(self, url: str) -> FetchResult:
        """Fetch one URL and keep its body."""
        async with self.fetched(url) as result:
            return result

    def _result(self, way: Way, reason: str, body: bytes = b"") -> FetchResult:
        seconds = self._config.total_seconds - way.seconds
        return FetchResult(reason=reason, body=body, final_url=way.url, seconds=seconds)

    async def _attempt(self, url: URL, way: Way, passed: float) -> tuple[str, bytes, bool]:
        """Try once: the reason, the body, and whether another try may succeed."""
        try:
            self._check(url, passed)
        except Failure as failure:
            return failure.reason, b"", False
        circuit = self._circuit(url)
        try:
            answer = await self._follow(url, way, self._config.max_bytes, polite=True)
        except Failure as failure:
            again = failure.transient and way.seconds > 0
            if way.url == str(url):  # not of a host that a redirect led to
                circuit.note(failure.reason)
            return failure.reason, b"", again
        circuit.note("")
        return "", answer.body, False

    def _check(self, url: URL, passed: float | None = None) -> float:
        try:
            return self._circuit(url).check(passed)
        except Failure:
            self.spared += 1
            raise

    def _circuit(self, url: URL) -> Circuit:
        origin = str(url.origin())
        circuit = self._memory.circuits.get(origin)
        if circuit is None:
            circuit = Circuit(self._config)
            self._memory.circuits.put(origin, circuit)
        return circuit

    async def _follow(self, url: URL, way: Way, max_bytes: int, *, polite: bool) -> _Answer:
        """Ask for an admitted URL and for where it redirects to, admitting every hop anew.

        A place is held; another URL may have it while a hop waits.
        """
        for hop in range(self._config.max_redirects + 1):
            way.url = str(url)
            if hop:
                self._slots.release()
                try:
                    await self._admit(url, polite=polite)
                finally:
                    await self._slots.acquire()
            answer = await self._request(url, way, max_bytes, polite=polite)
            if answer.status not in REDIRECTS:
                return answer
            try:
                target = str(url.join(URL(answer.headers["Location"])))
            except (LookupError, ValueError) as error:
                raise Failure("bad_redirect") from error
            url = self._guard.parse(target)
        raise Failure("too_many_redirects")

    async def _admit(self, url: URL, *, polite: bool = True) -> None:
        """Wait until a URL may be asked for: not opted out, allowed by robots.txt, in its host's turn."""
        if str(url) in self._opted_out:
            raise Failure("opted_out")
        address = await self._address(url)
        if polite and self._config.respect_robots:
            await self._permission.check(url)
        host = canonical_host(url.raw_host or "")
        if not await self._turns.wait(host, address, self._config.turn_seconds):
            raise Failure("host_busy")

    async def _address(self, url: URL) -> str:
        """The address whose budget counts, "" where none does."""
        host = url.raw_host or ""
        if canonical_host(host) in self._served:
            return ""
        with suppress(ValueError):
            return str(ipaddress.ip_address(host))
        try:
            return str((await self._guard.resolve(host, url.port or 0))[0]["host"])
        except AddressRefused as error:
            raise Failure("address_refused", str(error)) from error
        except OSError as error:
            if is_ours(error):
                raise
            raise Failure("dns_failed", str(error)) from error

    async def _slow(self, origin: URL, seconds: float) -> None:
        await self._turns.slow(canonical_host(origin.raw_host or ""), seconds)

    async def _fetch_robots(self, url: URL) -> bytes:
        await self._admit(url, polite=False)
        async with self._slots:
            way = Way(self._config.attempt_seconds)
            return (await self._follow(url, way, robots.MAX_BYTES, polite=False)).body

    async def _request(self, url: URL, way: Way, max_bytes: int, *, polite: bool) -> _Answer:
        """Make one request, within the time that is left; the body of a redirect is not read."""
        get = self._session.get
        places = self._places.setdefault(str(url.origin()), asyncio.Semaphore(self._config.per_host))
        async with (
            places,
            way.timed(self._config.attempt_seconds) as body,
            failures(),
            get(url, allow_redirects=False) as response,
        ):
            tags = response.headers.getall("X-Robots-Tag", [])
            if polite and self._config.respect_tags and robots.refused_by_tag(tags, AGENT):
                raise Failure("robots_tag")
            if response.status in REDIRECTS:
                return _Answer(response.status, response.headers, b"")
            if response.status != 200:
                told = await self._told_to_wait(url, response.status, response.headers.get("Retry-After"))
                raise Failure(f"http_{response.status}", transient=told or response.status >= 500)
            body.begun = True
            body_bytes = await read_body(response, max_bytes, cut=not polite)
            return _Answer(200, response.headers, body_bytes)

    async def _told_to_wait(self, url: URL, status: int, after: str | None) -> bool:
        """Leave a host alone that asks for it; whether it said for how long."""
        seconds = robots.retry_after(after) if status in (429, 503) else None
        if seconds is None and status != 429:
            return False
        pause = self._config.host_pause_seconds if seconds is None else seconds
        await self._turns.pause(canonical_host(url.raw_host or ""), pause)
        return seconds is not None
