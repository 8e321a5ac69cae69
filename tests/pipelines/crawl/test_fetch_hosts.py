"""Which hosts are connected to, how often, and what is remembered of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from pipelines.crawl.budget import Budget
from pipelines.crawl.fetch import Fetcher, FetchResult
from pipelines.crawl.guard import AddressGuard, _result
from pipelines.crawl.known import Memory
from pipelines.crawl.names import Names
from tests.fixtures.crawl_site import ANY_PORT, FAST, HOSTILE, SITE, SITE_BY_NAME, Site, answer

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


def test_remembered_addresses_are_judged_again() -> None:
    async def run() -> tuple[str, int]:
        memory = Memory()
        memory.names.known.put("innocent.example", ["127.0.0.1"])
        async with Site({}) as trap, Fetcher(ANY_PORT, memory=memory) as fetcher:
            result = await fetcher.fetch(f"http://innocent.example:{trap.port}/a.jpg")
            return result.reason, trap.connections

    assert asyncio.run(run()) == ("address_refused", 0)


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
