"""What a server answers, and what becomes of the row: bodies, lengths, limits, robots.txt."""

from __future__ import annotations

import asyncio
import errno
import gzip
from dataclasses import replace

import pytest

from pipelines.crawl.fetch import Fetcher, FetchResult
from pipelines.crawl.guard import BoundedSocket
from pipelines.crawl.limits import AGENT
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.robots import MAX_BYTES as MAX_ROBOTS
from tests.fixtures.crawl_site import FAST, SITE, Answer, Site, answer, fetch


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


HUGE = 100_000_000
sent: list[int] = []


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


def _rules(size: int, last: str) -> bytes:
    """A robots.txt of so many bytes with a rule for `/private` first and one line at its end."""
    head = f"User-agent: {AGENT}\nDisallow: /private\n"
    return (head + "# ".ljust(size - len(head) - len(last) - 1, "x") + "\n" + last).encode()


async def _endless_robots(writer: asyncio.StreamWriter, attempt: int) -> None:
    writer.write(b"HTTP/1.1 200 X\r\n\r\n" + _rules(MAX_ROBOTS, "\n"))
    for _ in range(10_000):
        writer.write(b"Disallow: /\n" * 1000)
        await writer.drain()


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


def test_a_body_that_takes_too_long_is_not_asked_for_again_but_silence_is() -> None:
    async def silent(writer: asyncio.StreamWriter, attempt: int) -> None:
        await asyncio.sleep(5)

    config = replace(FAST, attempt_seconds=0.3, total_seconds=2.0, retries=1)
    result, site = fetch({"/a.jpg": _drip}, config=config)
    assert (result.reason, site.asked["/a.jpg"]) == ("timeout", 1)
    result, site = fetch({"/a.jpg": silent}, config=config)
    assert (result.reason, site.asked["/a.jpg"]) == ("timeout", 2)


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
