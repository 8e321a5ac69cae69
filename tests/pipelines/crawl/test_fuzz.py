"""Mutated answers, URLs, redirects and robots files by the thousand: each is a row with a reason, in time."""

from __future__ import annotations

import asyncio
import random
import resource
from types import ModuleType

import pytest

from pipelines.crawl.limits import AGENT, FetchConfig
from pipelines.crawl.reasons import is_reason
from pipelines.crawl.robots import parse_robots
from pipelines.urls.opt_out import OptOut

CONFIG = FetchConfig(
    attempt_seconds=5.0, total_seconds=10.0, concurrency=16, backoff_seconds=0.0, retries=0,
    max_bytes=100_000, host_rate=0, host_pause_seconds=0.01, host_failures=10**6, per_host=64,
    respect_robots=False, turn_seconds=2.0,
)  # fmt: skip
MEGABYTES = 250

few_and_many = pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])


def seed() -> int:
    made = random.randrange(1 << 30)
    print(f"seed {made}")
    return made


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def fuzz(load_fixture) -> ModuleType:
    return load_fixture("fuzz_crawl")


@few_and_many
def test_every_raw_answer_is_a_row(count: int, fuzz: ModuleType) -> None:
    start = seed()

    def page(path: str) -> bytes:
        number = int(path.strip("/")) if path.strip("/").isdigit() else 0
        return fuzz.answers(random.Random(start + number))

    before = megabytes()
    urls = [f"http://site.test/{number}" for number in range(count)]
    reasons, longest = asyncio.run(fuzz.outcomes(urls, page, CONFIG, ["site.test"]))
    print(reasons)
    assert reasons.total() == count
    assert all(is_reason(reason) for reason in reasons if reason), reasons
    assert not any(reason.startswith("internal_") for reason in reasons)
    assert len(reasons) > 5 and reasons[""] > count / 50
    assert longest < CONFIG.total_seconds + 1
    assert megabytes() - before < MEGABYTES


@few_and_many
def test_every_url_is_a_row_as_it_stands_and_as_a_redirect(count: int, fuzz: ModuleType) -> None:
    start = seed()

    def page(path: str) -> bytes:
        number = path.rpartition("/to/")[2]
        if not number.isdigit():
            return b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        target = fuzz.urls(random.Random(start + int(number))).encode("utf-8", "surrogateescape")
        return (
            b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nConnection: close\r\nLocation: %s\r\n\r\n"
            % target.replace(b"\n", b"").replace(b"\0", b"")
        )

    before = megabytes()
    urls = [fuzz.urls(random.Random(start + number)) for number in range(0, count, 2)]
    urls += [f"http://site.test/to/{number}" for number in range(0, count, 2)]
    reasons, longest = asyncio.run(fuzz.outcomes(urls, page, CONFIG, ["site.test"]))
    print(reasons)
    assert reasons.total() == count
    assert all(is_reason(reason) for reason in reasons if reason), reasons
    assert not any(reason.startswith("internal_") for reason in reasons)
    assert {"bad_url", "scheme_refused", "address_refused", "http_404"} <= reasons.keys()
    assert longest < CONFIG.total_seconds + 1
    assert megabytes() - before < MEGABYTES
    entries = [url for url in urls if url.startswith("http://site.test/")]
    assert all(entry in OptOut([entry]) for entry in entries)


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_every_robots_file_is_read_and_judges_in_little_time_and_memory(count: int, fuzz: ModuleType) -> None:
    start, before, paths = seed(), megabytes(), ("/", "/a.jpg?x=1", "/" + "a" * 100, "/" + "a" * 3000)
    slowest = 0.0
    for number in range(count):
        text = fuzz.robots_files(random.Random(start + number)).decode("utf-8", "replace")

        def judge(text: str = text) -> None:
            rules = parse_robots(text, AGENT)
            for path in paths:
                rules.allows(path)

        slowest = max(slowest, fuzz.cpu_seconds_of(judge))
    print(f"slowest {slowest:.3f} s")
    assert slowest < 0.5
    assert megabytes() - before < MEGABYTES
