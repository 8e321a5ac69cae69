"""The fetcher against a hostile server on loopback: real sockets, real redirects, real limits."""

from __future__ import annotations

import asyncio
import errno
import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from pipelines.crawl.budget import Budget
from pipelines.crawl.fetch import Fetcher, FetchResult
from pipelines.crawl.guard import AddressGuard, BoundedSocket, _result
from pipelines.crawl.known import Memory
from pipelines.crawl.manners import AGENT, FetchConfig
from pipelines.crawl.names import Names
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.robots import MAX_BYTES as MAX_ROBOTS
from pipelines.urls.opt_out import OptOut

SITE, SITE_BY_NAME = "site.test", "site.example"
FAST = FetchConfig(
    attempt_seconds=20.0, total_seconds=40.0, backoff_seconds=0.01, retries=2, max_bytes=10_000, host_rate=0
)
ANY_PORT = replace(FAST, allow_ports=tuple(range(1, 65_536)))
Answer = bytes | Callable[[asyncio.StreamWriter, int], Any]


def answer(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Site:
    """Answers each path with given bytes; counts requests by path, and connections."""

    def __init__(self, pages: dict[str, Answer]) -> None:
        self.pages = pages
        self.asked: Counter[str] = Counter()
        self.heads: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> Site:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            path = head.split()[1].decode()
            self.asked[path] += 1
            page = self.pages.get(path, answer(404))
            if callable(page):
                await page(writer, self.asked[path])
            else:
                writer.write(page)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def fetch(
    pages: dict[str, Answer], path: str = "/a.jpg", config: FetchConfig = FAST
) -> tuple[FetchResult, Site]:
    async def run() -> tuple[FetchResult, Site]:
        async with Site(pages) as site, Fetcher(config, {SITE: f"127.0.0.1:{site.port}"}) as fetcher:
            return await fetcher.fetch(f"http://{SITE}{path}"), site

    return asyncio.run(run())


HOSTILE = [
    "http://127.0.0.1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[fc00::1]:{port}/",
    "http://[ff02::1]:{port}/",
    "http://user:secret@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://10.0.0.1:{port}/",
    "http://172.16.0.1:{port}/",
    "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://[::ffff:a9fe:a9fe]/latest/meta-data/",
    "http://168.63.129.16/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
]
MALFORMED = {
    "http://example.test\\@127.0.0.1:{port}/": "bad_url",
    "http://127.0.0.1\t.example.test:{port}/": "bad_url",
    "http://127.0.0.1:{port}:80/": "bad_url",
    "http://user:secret@site.test/": "bad_url",
    "http://[::1": "bad_url",
    "http:///a.jpg": "bad_url",
    "http://127.0.0.1:99999/": "bad_url",
    "": "scheme_refused",
    "//127.0.0.1:{port}/": "scheme_refused",
    "file:///etc/hostname": "scheme_refused",
    "data:image/png;base64,AAAA": "scheme_refused",
    "ftp://127.0.0.1:{port}/": "scheme_refused",
    "gopher://127.0.0.1:{port}/": "scheme_refused",
}


def test_no_form_of_a_private_address_is_connected_to() -> None:
    expected = {url: "address_refused" for url in HOSTILE} | MALFORMED

    async def run() -> tuple[dict[str, str], int]:
        async with Site({}) as trap, Fetcher(ANY_PORT, {SITE: f"127.0.0.1:{trap.port}"}) as fetcher:
            reasons = {url: (await fetcher.fetch(url.format(port=trap.port))).reason for url in expected}
            return reasons, trap.connections

    reasons, connections = asyncio.run(run())
    assert reasons == expected
    assert connections == 0


def test_no_hop_of_a_redirect_leads_to_a_private_address() -> None:
    async def run() -> tuple[list[FetchResult], int, int]:
        async with Site({}) as trap:
            away = [*HOSTILE, "file:///etc/hostname", "//127.0.0.1:{port}/", "\\\\127.0.0.1:{port}/"]
            pages: dict[str, Answer] = {
                "/robots.txt": answer(404),
                "/first": answer(302, b"", "Location: /0"),
            }
            for index, url in enumerate(away):
                pages[f"/{index}"] = answer(302, b"", f"Location: {url.format(port=trap.port)}")
            async with (
                Site(pages) as site,
                Fetcher(ANY_PORT, {SITE: f"127.0.0.1:{site.port}"}) as fetcher,
            ):
                results = [await fetcher.fetch(f"http://{SITE}/{index}") for index in range(len(away))]
                results.append(await fetcher.fetch(f"http://{SITE}/first"))
                return results, trap.connections, site.asked["/first"]

    results, trapped, asked = asyncio.run(run())
    refused = ("address_refused", "scheme_refused", "http_404", "bad_url", "protocol_error")
    assert all(result.reason in refused for result in results), [r.reason for r in results]
    assert results[0].reason == results[-1].reason == "address_refused"
    assert (trapped, asked) == (0, 1)


def test_a_name_that_leads_to_a_private_address_is_refused() -> None:
    async def reason(addresses: list[str]) -> tuple[str, int]:
        async def lookup(host: str, port: int) -> list[str]:
            return addresses

        async with Site({}) as trap, Fetcher(ANY_PORT, memory=Memory(names=Names(lookup))) as fetcher:
            result = await fetcher.fetch(f"http://innocent.example:{trap.port}/a.jpg")
            return result.reason, trap.connections

    for addresses in (["127.0.0.1"], ["93.184.215.14", "127.0.0.1"], ["::1"], ["::ffff:127.0.0.1"]):
        assert asyncio.run(reason(addresses)) == ("address_refused", 0)
    assert asyncio.run(reason([])) == ("dns_failed", 0)


def test_an_address_that_changes_after_the_check_is_refused_at_the_socket(monkeypatch: Any) -> None:
    async def rebound(self: AddressGuard, host: str, port: int = 0, family: int = 0) -> Any:
        return [_result(host, "127.0.0.1", port)]

    async def run() -> tuple[str, int]:
        async with Site({}) as trap, Fetcher(ANY_PORT) as fetcher:
            result = await fetcher.fetch(f"http://rebinding.example:{trap.port}/a.jpg")
            return result.reason, trap.connections

    monkeypatch.setattr(AddressGuard, "resolve", rebound)
    assert asyncio.run(run()) == ("address_refused", 0)


def test_the_allow_list_opens_a_private_host() -> None:
    async def run() -> FetchResult:
        config = replace(FAST, allow_hosts=("127.0.0.1",))
        async with Site({"/a.jpg": answer(200, b"image")}) as site, Fetcher(config) as fetcher:
            return await fetcher.fetch(f"http://127.0.0.1:{site.port}/a.jpg")

    assert asyncio.run(run()).body == b"image"


def test_success_gives_the_bytes_and_the_final_url_and_says_who_asks() -> None:
    pages: dict[str, Answer] = {
        "/a.jpg": answer(301, b"", "Location: b.jpg"),
        "/b.jpg": answer(200, b"image", "Set-Cookie: id=1"),
    }
    result, site = fetch(pages, config=replace(FAST, contact="mailto:somebody@example.test"))
    assert result == FetchResult(body=b"image", final_url=f"http://{SITE}/b.jpg")
    assert f"User-Agent: {AGENT}/0.1".encode() in site.heads[-1]
    assert b"mailto:somebody@example.test" in site.heads[-1]
    assert not any(b"Cookie" in head or b"Referer" in head for head in site.heads)


async def _drip(writer: asyncio.StreamWriter, attempt: int) -> None:
    writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 9000\r\n\r\n")
    for _ in range(100):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


async def _endless(writer: asyncio.StreamWriter, attempt: int) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n\r\n")
    for _ in range(10_000):
        writer.write(b"x" * 4096)
        await writer.drain()


async def _reset_once(writer: asyncio.StreamWriter, attempt: int) -> None:
    if attempt > 1:
        writer.write(answer(200, b"image"))


async def _heals(writer: asyncio.StreamWriter, attempt: int) -> None:
    writer.write(answer(200, b"image") if attempt > 1 else answer(503))


@pytest.mark.parametrize(
    ("page", "reason", "requests"),
    [
        (answer(404), "http_404", 1),
        (answer(410), "http_410", 1),
        (answer(429), "http_429", 1),
        (answer(500), "http_500", 3),
        (_heals, "", 2),
        (_reset_once, "", 2),
        (answer(200, b"x" * 10_000), "", 1),
        (answer(200, b"x" * 10_001), "too_large", 1),
        (_endless, "too_large", 1),
        (answer(200, gzip.compress(b"image", mtime=0), "Content-Encoding: gzip"), "", 1),
        (answer(200, gzip.compress(b"0" * 10**7, mtime=0), "Content-Encoding: gzip"), "too_large", 1),
        (answer(200, gzip.compress(b"image", mtime=0)[:-6], "Content-Encoding: gzip"), "truncated", 1),
        (answer(200, b"image", "Content-Encoding: br"), "encoding_refused", 1),
        (b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nfive!", "truncated", 1),
        (answer(200, b"image", "X: " + "y" * 20_000), "headers_too_large", 1),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "protocol_error", 1),
        (answer(302), "bad_redirect", 1),
        (answer(302, b"", "Location: /a.jpg"), "too_many_redirects", 6),
        (answer(200, b"image", "X-Robots-Tag: noai"), "robots_tag", 1),
        (answer(403, b"", "X-Robots-Tag: noindex, NoImageAI"), "robots_tag", 1),
        (answer(200, b"image", "X-Robots-Tag: otherbot: noai"), "", 1),
    ],
)
def test_each_answer_has_its_reason_and_only_what_can_heal_is_tried_again(
    page: Answer, reason: str, requests: int
) -> None:
    result, site = fetch({"/a.jpg": page})
    assert (result.reason, site.asked["/a.jpg"]) == (reason, requests)
    assert is_reason(reason) or result.body


HUGE = 100_000_000


async def _after_gzip(writer: asyncio.StreamWriter, attempt: int) -> None:
    """A whole gzip body, and then more than anybody wants."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"image"))
    await _flood(writer, b"x" * 4096)


async def _after_chunks(writer: asyncio.StreamWriter, attempt: int) -> None:
    """Trailers without end after a body in chunks."""
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nimage\r\n0\r\n")
    await _flood(writer, b"X: y\r\n" * 700)


async def _padded_chunks(writer: asyncio.StreamWriter, attempt: int) -> None:
    """One byte per chunk, the rest are extensions of the chunk's length."""
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    await _flood(writer, b"1;" + b"e" * 4000 + b"\r\nx\r\n")


async def _interim(writer: asyncio.StreamWriter, attempt: int) -> None:
    """Interim answers without end."""
    await _flood(writer, b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 100)


async def _flood(writer: asyncio.StreamWriter, piece: bytes) -> None:
    sent.clear()
    while sum(sent) < HUGE:
        writer.write(piece)
        sent.append(len(piece))
        await writer.drain()


sent: list[int] = []


@pytest.mark.parametrize(
    ("page", "reasons"),
    [
        (_after_gzip, ("too_large",)),
        (_after_chunks, ("too_large", "headers_too_large")),
        (_padded_chunks, ("too_large", "protocol_error")),
        (_interim, ("too_large",)),
    ],
)
def test_every_byte_on_the_wire_counts_whatever_it_is_called(page: Answer, reasons: tuple[str, ...]) -> None:
    result, _ = fetch({"/a.jpg": page})
    assert result.reason in reasons
    assert sum(sent) < 12_000_000  # the limit, and what lay in the sockets' buffers


@pytest.mark.parametrize(
    "digits", ["9" * 5000, "1" * 4301, "0" * 5000 + "5", "-5", "+5", "5_0", "٥", "", "5, 5"]
)
@pytest.mark.parametrize("status", [200, 302, 404, 503])
def test_a_length_that_is_no_number_of_bytes_is_the_rows_alone(digits: str, status: int) -> None:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {digits}\r\nConnection: close\r\n\r\n"
    result, _ = fetch({"/a.jpg": head.encode() + b"image"})
    assert is_reason(result.reason) or result.body == b"image"


BAD_HOSTS = [
    "http://a..b/", "http://.a/", "http://../", "http://" + "a" * 64 + ".test/", "http://a b.test/",
    "http://" + "a." * 127 + "ab/", "http://" + "%41" * 30 + "/", "http://%41.test/", "http://a%00b.test/",
    "http://a*b/", "http://xn--a..b/", "http://" + "ü" * 64 + ".test/", "http://\udcff.test/",
    "http://" + "é." * 200 + "test/", "http://a\u200b.test/", "http://a,b.test/", "http://[]@/",
    "http://1.2.3.4%00/", "http://a%2etest/", "http://site.test/" + "a" * 9000,
]  # fmt: skip


def test_a_host_that_no_resolver_can_be_asked_for_is_a_bad_url_also_by_redirect() -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def run() -> list[tuple[str, str]]:
        redirect = "HTTP/1.1 302 X\r\nContent-Length: 0\r\nConnection: close\r\nLocation: {}\r\n\r\n"
        pages: dict[str, Answer] = {
            f"/{number}": redirect.format(url).encode("utf-8", "surrogateescape")
            for number, url in enumerate(BAD_HOSTS)
        }
        async with (
            Site(pages) as site,
            Fetcher(FAST, {SITE: f"127.0.0.1:{site.port}"}, memory=Memory(names=Names(lookup))) as fetcher,
        ):
            return [
                ((await fetcher.fetch(url)).reason, (await fetcher.fetch(f"http://{SITE}/{number}")).reason)
                for number, url in enumerate(BAD_HOSTS)
            ]

    reasons = asyncio.run(run())
    assert [first for first, _ in reasons] == ["bad_url"] * len(BAD_HOSTS)
    assert {second for _, second in reasons} <= {"bad_url", "bad_redirect", "headers_too_large"}
    assert asked == []


@pytest.mark.parametrize("label", ["xn--a-a", "xn--zug", "xn--b-ro7g"])
def test_a_host_whose_ascii_decodes_to_no_name_is_asked_for_as_it_stands(label: str) -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["10.0.0.1"]

    async def run() -> str:
        async with Fetcher(FAST, memory=Memory(names=Names(lookup))) as fetcher:
            return (await fetcher.fetch(f"http://{label}.example/a.jpg")).reason

    assert asyncio.run(run()) == "address_refused"
    assert asked == [f"{label}.example"]


@pytest.mark.parametrize("port", [22, 25, 6379, 11211, 1, 65_535, 8080])
def test_a_port_where_no_web_server_is_expected_is_refused_unless_it_is_configured(port: int) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    async def reasons(config: FetchConfig) -> list[str]:
        async with (
            Site({"/a.jpg": answer(302, b"", f"Location: http://other.example:{port}/")}) as site,
            Fetcher(config, {SITE: f"127.0.0.1:{site.port}"}, memory=Memory(names=Names(lookup))) as fetcher,
        ):
            urls = (f"https://other.example:{port}/", f"http://{SITE}/a.jpg", f"http://8.8.8.8:{port}/")
            return [(await fetcher.fetch(url)).reason for url in urls[: 3 if config is FAST else 2]]

    assert asyncio.run(reasons(FAST)) == ["port_refused"] * 3
    assert asyncio.run(reasons(replace(FAST, allow_ports=(port,)))) == ["address_refused"] * 2  # one step on


def test_no_hop_leads_to_a_url_or_host_that_opted_out_nor_to_its_robots_txt() -> None:
    theirs = OptOut(["theirs.test", f"https://{SITE}/secret.jpg"])
    pages: dict[str, Answer] = {
        "/robots.txt": answer(404),
        "/1": answer(302, b"", "Location: http://theirs.test/a.jpg"),
        "/2": answer(302, b"", "Location: https://WWW.Theirs.test.:443/%61.jpg#x"),
        "/3": answer(302, b"", "Location: //theirs\u3002test/"),
        "/4": answer(302, b"", "Location: /x/../%73ecret.jpg#x"),
        "/5": answer(302, b"", "Location: /1"),
        "/open.jpg": answer(200, b"image"),
    }

    async def run() -> tuple[list[str], Site, Site]:
        async with Site({"/a.jpg": answer(200, b"image")}) as other, Site(pages) as site:
            places = {SITE: f"127.0.0.1:{site.port}", "theirs.test": f"127.0.0.1:{other.port}"}
            places["www.theirs.test"] = places["theirs.test"]
            async with Fetcher(FAST, places, opted_out=theirs) as fetcher:
                urls = [f"http://{SITE}/{path}" for path in (1, 2, 3, 4, 5, "secret.jpg", "open.jpg")]
                return [(await fetcher.fetch(url)).reason for url in urls], site, other

    reasons, site, other = asyncio.run(run())
    assert reasons == ["opted_out"] * 6 + [""]
    assert other.connections == 0 and site.asked["/secret.jpg"] == 0


def test_a_redirects_target_is_asked_in_its_hosts_turn_and_holds_no_place_while_it_waits() -> None:
    pages: dict[str, Answer] = {"/robots.txt": answer(404)}
    pages |= {f"/{n}": answer(302, b"", f"Location: http://{SITE_BY_NAME}/{n}") for n in range(4)}
    target = {"/robots.txt": answer(404), **{f"/{n}": answer(200, b"image") for n in range(4)}}
    times: list[float] = []

    async def timed(writer: asyncio.StreamWriter, attempt: int) -> None:
        times.append(asyncio.get_running_loop().time())
        writer.write(answer(200, b"image"))

    for number in range(4):
        target[f"/{number}"] = timed
    config = replace(FAST, concurrency=1, host_rate=5, respect_robots=False)  # its request has a turn, too

    async def run() -> float:
        async with Site(pages) as site, Site(target) as other, Site({"/x": answer(200, b"image")}) as third:
            places = {
                SITE: f"127.0.0.1:{site.port}",
                SITE_BY_NAME: f"127.0.0.1:{other.port}",
                "third.test": f"127.0.0.1:{third.port}",
            }
            budget = Budget(config)
            budget.take([(SITE_BY_NAME, "", 1)])  # others are there before us
            async with Fetcher(config, places, budget=budget) as fetcher:
                redirected = [asyncio.create_task(fetcher.fetch(f"http://{SITE}/{n}")) for n in range(4)]
                await asyncio.sleep(0.1)  # the first waits for its second host
                begin = asyncio.get_running_loop().time()
                assert (await fetcher.fetch("http://third.test/x")).body == b"image"
                soon = asyncio.get_running_loop().time() - begin
                assert [(await task).reason for task in redirected] == [""] * 4
                return soon

    soon = asyncio.run(run())
    assert soon < 0.1  # with one place in all
    assert all(later - earlier > 0.15 for earlier, later in pairwise(times))


def test_a_host_has_one_turn_by_whatever_scheme_port_and_spelling_it_is_asked() -> None:
    """Redirects from http to https, or to another port, would double the rate."""
    urls = [
        "http://bücher.example/1", "https://bücher.example/1", "http://xn--bcher-kva.example./",
        "http://BÜCHER.example:443/", "https://bücher.example:80/", "http://bücher。example/",
    ]  # fmt: skip

    class Listening(Budget):
        def take(self, asked: Any) -> Any:
            hosts.extend(host for host, _, _ in asked)
            return super().take(asked)

    hosts: list[str] = []

    async def ask() -> None:
        places = {"bücher.example": "127.0.0.1:9"}
        async with Fetcher(FAST, places, budget=Listening(FAST)) as fetcher:
            for url in urls:
                await fetcher._admit(fetcher._guard.parse(url), polite=False)

    asyncio.run(ask())
    assert hosts == ["xn--bcher-kva.example"] * len(urls)


def test_want_of_files_is_ours_and_no_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(BoundedSocket, "__init__", refused)
    with pytest.raises(OSError, match="Too many open files"):
        fetch({"/a.jpg": answer(200, b"image")})


def test_a_dripping_body_ends_with_the_time_for_the_url() -> None:
    result, site = fetch({"/a.jpg": _drip}, config=replace(FAST, attempt_seconds=0.4, total_seconds=0.6))
    assert result.reason == "timeout"
    assert 1 <= site.asked["/a.jpg"] <= 2


def test_robots_txt_is_read_once_and_kept_to() -> None:
    text = f"User-agent: {AGENT}\nDisallow: /private\n".encode()
    pages: dict[str, Answer] = {"/robots.txt": answer(200, text), "/a.jpg": answer(200, b"image")}

    async def run() -> tuple[list[str], Site]:
        async with Site(pages) as site, Fetcher(FAST, {SITE: f"127.0.0.1:{site.port}"}) as fetcher:
            urls = [f"http://{SITE}/{path}" for path in ("a.jpg", "private/a.jpg", "a.jpg")]
            return [result.reason for result in await asyncio.gather(*map(fetcher.fetch, urls))], site

    reasons, site = asyncio.run(run())
    assert reasons == ["", "robots_disallowed", ""]
    assert site.asked == {"/robots.txt": 1, "/a.jpg": 2}


@pytest.mark.parametrize(
    ("robots", "reason"),
    [(answer(404), ""), (answer(403), ""), (answer(500), "robots_unreachable"), (answer(200), "")],
)
def test_a_robots_txt_that_cannot_be_read(robots: Answer, reason: str) -> None:
    result, _ = fetch({"/robots.txt": robots, "/a.jpg": answer(200, b"image")})
    assert result.reason == reason


def _rules(size: int, last: str) -> bytes:
    """A robots.txt of so many bytes with a rule for `/private` first and one line at its end."""
    head = f"User-agent: {AGENT}\nDisallow: /private\n"
    return (head + "# ".ljust(size - len(head) - len(last) - 1, "x") + "\n" + last).encode()


async def _endless_robots(writer: asyncio.StreamWriter, attempt: int) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n\r\n" + _rules(MAX_ROBOTS, "\n"))
    for _ in range(10_000):
        writer.write(b"Disallow: /\n" * 1000)
        await writer.drain()


@pytest.mark.parametrize(
    "page",
    [
        answer(200, _rules(MAX_ROBOTS + 12, "Disallow: /\n")),
        answer(200, _rules(MAX_ROBOTS + 7, "Disallow: /a/b/c/d")),  # the limit leaves "Disallow: /"
        answer(200, _rules(MAX_ROBOTS + 3, "Disallow: /a.jpg.d")),  # and "Disallow: /a.jp"
        answer(200, gzip.compress(_rules(10**7, "Disallow: /\n")), "Content-Encoding: gzip"),
        _endless_robots,
    ],
)
def test_of_a_long_robots_txt_the_whole_lines_within_the_limit_count(page: Answer) -> None:
    pages = {"/robots.txt": page, "/a.jpg": answer(200, b"image"), "/private": answer(200, b"image")}
    assert fetch(pages)[0] == FetchResult(body=b"image", final_url=f"http://{SITE}/a.jpg")
    assert fetch(pages, "/private")[0].reason == "robots_disallowed"


def test_a_refused_connection_and_a_name_that_does_not_exist() -> None:
    async def run() -> list[str]:
        async with Site({}) as site:
            port = site.port
        async with Fetcher(FAST, {SITE: f"127.0.0.1:{port}"}) as fetcher:
            urls = (f"http://{SITE}/a.jpg", "http://nowhere.invalid/a.jpg")
            return [(await fetcher.fetch(url)).reason for url in urls]

    assert asyncio.run(run()) == ["connect_failed", "dns_failed"]


def test_one_host_is_asked_only_so_much_at_a_time() -> None:
    busy = most = 0

    async def page(writer: asyncio.StreamWriter, attempt: int) -> None:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        await asyncio.sleep(0.02)
        busy -= 1
        writer.write(answer(200, b"image"))

    async def run() -> list[FetchResult]:
        async with Site({f"/{i}": page for i in range(12)}) as site:
            config = replace(FAST, per_host=3)
            async with Fetcher(config, {SITE: f"127.0.0.1:{site.port}"}) as fetcher:
                return await asyncio.gather(*(fetcher.fetch(f"http://{SITE}/{i}") for i in range(12)))

    assert all(result.body for result in asyncio.run(run()))
    assert most <= 3


def test_a_host_that_is_down_is_spared_and_its_rows_read_the_same() -> None:
    async def run() -> tuple[list[FetchResult], int]:
        async with Site({}) as site:
            port = site.port
        config = replace(FAST, host_failures=3, concurrency=1, retries=0)
        async with Fetcher(config, {SITE: f"127.0.0.1:{port}"}) as fetcher:
            results = [await fetcher.fetch(f"http://{SITE}/{number}") for number in range(8)]
            return results, fetcher.spared

    results, spared = asyncio.run(run())
    assert [result.reason for result in results] == ["connect_failed"] * 8
    assert [result.final_url for result in results] == [f"http://{SITE}/{n}" for n in range(8)]
    assert spared == 5


def test_what_was_learned_about_hosts_outlives_a_fetcher() -> None:
    asked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async def run() -> Site:
        memory = Memory(names=Names(lookup))
        async with Site({"/a.jpg": answer(200, b"image")}) as site:
            for _ in range(3):
                config = replace(FAST, allow_hosts=(SITE_BY_NAME,))
                async with Fetcher(config, memory=memory) as fetcher:
                    assert (await fetcher.fetch(f"http://{SITE_BY_NAME}:{site.port}/a.jpg")).body == b"image"
            return site

    site = asyncio.run(run())
    assert site.asked == {"/robots.txt": 1, "/a.jpg": 3}
    assert asked == [SITE_BY_NAME]


def test_remembered_addresses_are_judged_again() -> None:
    async def run() -> tuple[str, int]:
        memory = Memory()
        memory.names.known.put("innocent.example", ["127.0.0.1"])
        async with Site({}) as trap, Fetcher(ANY_PORT, memory=memory) as fetcher:
            result = await fetcher.fetch(f"http://innocent.example:{trap.port}/a.jpg")
            return result.reason, trap.connections

    assert asyncio.run(run()) == ("address_refused", 0)


def test_a_body_that_takes_too_long_is_not_asked_for_again_but_silence_is() -> None:
    async def silent(writer: asyncio.StreamWriter, attempt: int) -> None:
        await asyncio.sleep(5)

    config = replace(FAST, attempt_seconds=0.3, total_seconds=2.0, retries=1)
    result, site = fetch({"/a.jpg": _drip}, config=config)
    assert (result.reason, site.asked["/a.jpg"]) == ("timeout", 1)
    result, site = fetch({"/a.jpg": silent}, config=config)
    assert (result.reason, site.asked["/a.jpg"]) == ("timeout", 2)
