"""Fetch bytes from untrusted URLs: politely, within limits, and from public addresses only."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from pipelines.ops import robots
from pipelines.ops.guard import AddressGuard, AddressRefused, Lookup
from pipelines.ops.manners import AGENT, FetchConfig
from pipelines.ops.reasons import Failure

REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, kw_only=True)
class FetchResult:
    """What became of one URL.

    Attributes:
        reason: empty for success, else a word of the vocabulary in `reasons.py`.
        body: the bytes, empty on failure.
        final_url: the last URL that was asked, after redirects; empty if none was.
    """

    reason: str = ""
    body: bytes = b""
    final_url: str = ""


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
    """

    def __init__(
        self, config: FetchConfig, overrides: Mapping[str, str] | None = None, lookup: Lookup | None = None
    ) -> None:
        self._config = config
        self._guard = AddressGuard(overrides, config.allow_hosts, lookup)
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._robots: dict[URL, asyncio.Task[robots.Robots]] = {}

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
        for task in self._robots.values():
            task.cancel()
        await asyncio.gather(*self._robots.values(), return_exceptions=True)
        await self._session.close()

    async def fetch(self, url: str) -> FetchResult:
        """Fetch one URL, with retries; whatever goes wrong becomes a reason, not an exception."""
        way = _Try(self._config.total_seconds)
        for attempt in range(self._config.retries + 1):
            try:
                answer = await self._follow(self._guard.parse(url), way, self._config.max_bytes, polite=True)
                return FetchResult(body=answer.body, final_url=way.url)
            except Failure as failure:
                reason = failure.reason
                if not failure.transient or way.seconds <= 0:
                    break
            if attempt < self._config.retries:
                await asyncio.sleep(self._config.backoff_seconds * 2**attempt)
        return FetchResult(reason=reason, final_url=way.url)

    async def _follow(self, url: URL, way: _Try, max_bytes: int, *, polite: bool) -> _Answer:
        """Ask for a URL and where it redirects to, judging every hop anew."""
        for _ in range(self._config.max_redirects + 1):
            if polite and self._config.respect_robots:
                await self._ask_robots(url)
            way.url = str(url)
            answer = await self._request(url, way, max_bytes, polite=polite)
            if answer.status not in REDIRECTS:
                return answer
            try:
                target = str(url.join(URL(answer.headers["Location"])))
            except (KeyError, ValueError) as error:
                raise Failure("bad_redirect") from error
            url = self._guard.parse(target)
        raise Failure("too_many_redirects")

    async def _request(self, url: URL, way: _Try, max_bytes: int, *, polite: bool) -> _Answer:
        """Make one request, within the time that is left; the body of a redirect is not read."""
        host = self._hosts.setdefault(str(url.origin()), asyncio.Semaphore(self._config.per_host))
        get = self._session.get
        async with host, self._timed(way), _explained(), get(url, allow_redirects=False) as response:
            tags = response.headers.getall("X-Robots-Tag", [])
            if polite and self._config.respect_tags and robots.refused_by_tag(tags, AGENT):
                raise Failure("robots_tag")
            if response.status in REDIRECTS:
                return _Answer(response.status, response.headers, b"")
            if response.status != 200:
                raise Failure(f"http_{response.status}", transient=response.status >= 500)
            return _Answer(200, response.headers, await _read(response, max_bytes))

    async def _ask_robots(self, url: URL) -> None:
        origin = url.origin()
        if origin not in self._robots:
            self._robots[origin] = asyncio.create_task(self._fetch_robots(origin / "robots.txt"))
        task = self._robots[origin]
        try:
            rules = await asyncio.shield(task)
        except Failure as failure:
            if failure.transient and self._robots.get(origin) is task:
                del self._robots[origin]
            raise
        if not rules.allows(url.raw_path_qs):
            raise Failure("robots_disallowed")

    async def _fetch_robots(self, url: URL) -> robots.Robots:
        """Fetch a host's rules: no file allows all, a server error forbids all (RFC 9309)."""
        way = _Try(self._config.attempt_seconds)
        try:
            answer = await self._follow(url, way, robots.MAX_BYTES, polite=False)
        except Failure as failure:
            if failure.reason.startswith("http_5"):
                raise Failure("robots_unreachable", transient=True) from failure
            if failure.reason.startswith("http_") or failure.reason == "too_many_redirects":
                return robots.Robots()
            raise
        return robots.parse_robots(answer.body.decode("utf-8", "replace"), AGENT)

    @asynccontextmanager
    async def _timed(self, way: _Try) -> AsyncIterator[None]:
        clock = asyncio.get_running_loop().time
        begin = clock()
        try:
            async with asyncio.timeout(max(0.0, min(self._config.attempt_seconds, way.seconds))):
                yield
        except TimeoutError:
            raise Failure("timeout", transient=True) from None
        finally:
            way.seconds -= clock() - begin


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body piece by piece, never more than `max_bytes` of it, compressed or not."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise Failure("encoding_refused", encoding)
    if (response.content_length or 0) > max_bytes:
        raise Failure("too_large")
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(wbits=47)
    body = bytearray()
    async for piece in response.content.iter_any():
        if inflate is not None:
            try:
                piece = inflate.decompress(piece, max_bytes + 1 - len(body))
            except zlib.error as error:
                raise Failure("truncated", str(error)) from error
        body += piece
        if len(body) > max_bytes:
            raise Failure("too_large")
    if inflate is not None and not inflate.eof:
        raise Failure("truncated")
    return bytes(body)


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    """Turn the HTTP client's exceptions into the vocabulary."""
    try:
        yield
    except AddressRefused as error:
        raise Failure("address_refused", str(error)) from error
    except aiohttp.ClientConnectorDNSError as error:
        refused = isinstance(error.os_error, AddressRefused)
        raise Failure("address_refused" if refused else "dns_failed", str(error)) from error
    except aiohttp.ClientSSLError as error:
        raise Failure("tls_failed", str(error)) from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, AddressRefused):
            raise Failure("address_refused", str(error)) from error
        reset = isinstance(error.os_error, ConnectionResetError)
        reason = "connection_reset" if reset else "connect_failed"
        raise Failure(reason, str(error), transient=reset) from error
    except aiohttp.ClientPayloadError as error:
        raise Failure("truncated", str(error)) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
        raise Failure("connection_reset", str(error), transient=True) from error
    except aiohttp.InvalidURL as error:
        raise Failure("bad_url", str(error)) from error
    except aiohttp.ClientError as error:
        large = "got more than" in str(error).lower() or "too many headers" in str(error).lower()
        raise Failure("headers_too_large" if large else "protocol_error", str(error)) from error
