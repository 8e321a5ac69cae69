"""Where a redirect may lead: every hop is judged as a URL of the list is."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from pipelines.crawl.budget import Budget
from pipelines.crawl.fetch import Fetcher, FetchResult
from pipelines.crawl.known import Memory
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.names import Names
from pipelines.urls.opt_out import OptOut
from tests.fixtures.crawl_site import ANY_PORT, FAST, HOSTILE, SITE, SITE_BY_NAME, Answer, Site, answer

BAD_HOSTS = [
    "http://a..b/", "http://.a/", "http://../", "http://" + "a" * 64 + ".test/", "http://a b.test/",
    "http://" + "a." * 127 + "ab/", "http://" + "%41" * 30 + "/", "http://%41.test/", "http://a%00b.test/",
    "http://a*b/", "http://xn--a..b/", "http://" + "ü" * 64 + ".test/", "http://\udcff.test/",
    "http://" + "é." * 200 + "test/", "http://a\u200b.test/", "http://a,b.test/", "http://[]@/",
    "http://1.2.3.4%00/", "http://a%2etest/", "http://site.test/" + "a" * 9000,
]  # fmt: skip


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
