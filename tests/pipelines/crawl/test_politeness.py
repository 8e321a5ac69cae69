"""What a site asks for is kept by one worker and by eight; a failure that may heal gets a second pass."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pipelines.crawl.budget import Asked, Budget, Given
from pipelines.crawl.fetch import Fetcher
from pipelines.crawl.guarded import GuardedDownload
from pipelines.crawl.known import Memory
from pipelines.crawl.limits import AGENT, FetchConfig
from pipelines.crawl.names import Names, system_lookup
from pipelines.crawl.resize import ResizeConfig
from pipelines.crawl.robots import retry_after
from pipelines.crawl.turns import Turns
from pipelines.dag import cluster
from pipelines.dag.artifact import Artifact
from pipelines.dag.cluster import ClusterConfig
from pipelines.dag.rows import RowErrors
from pipelines.dag.workspace import Workspace
from reptok.data.images import encode_jpeg

CONFIG = FetchConfig(
    allow_hosts=("127.0.0.1",), attempt_seconds=30, total_seconds=90, backoff_seconds=0.01, retries=1,
    host_rate=0, second_pass_seconds=0,
)  # fmt: skip


class Site:
    """Answers on loopback; keeps when each path was asked for.

    Attributes:
        answers: path to the (status, headers) of its requests, one after the other; then and elsewhere 200.
    """

    def __init__(self, robots: str = "", answers: dict[str, list[tuple[int, dict[str, str]]]] | None = None):
        self.asked: dict[str, list[float]] = defaultdict(list)
        answers, site = answers or {}, self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked[self.path].append(time.monotonic())
                status, headers = answers[self.path].pop(0) if answers.get(self.path) else (200, {})
                body = robots.encode() if self.path == "/robots.txt" else PICTURE
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()

    def times(self) -> list[float]:
        """Of all pictures."""
        return sorted(at for path, times in self.asked.items() if path != "/robots.txt" for at in times)


@pytest.fixture(scope="module", autouse=True)
def picture() -> None:
    import numpy as np

    global PICTURE
    PICTURE = encode_jpeg(np.zeros((64, 64, 3), np.uint8))


PICTURE = b""


def reasons(
    site: Site, paths: list[str], config: FetchConfig = CONFIG, memory: Memory | None = None
) -> list[str]:
    async def run() -> list[str]:
        async with Fetcher(config, memory=memory) as fetcher:
            found = await asyncio.gather(*(fetcher.fetch(site.url + path) for path in paths))
            return [result.reason for result in found]

    return asyncio.run(run())


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_stops_the_whole_host_for_so_long(status: int) -> None:
    with Site(answers={"/a": [(status, {"Retry-After": "2"})]}) as site:

        async def run() -> list[str]:
            async with Fetcher(CONFIG) as fetcher:
                first = asyncio.create_task(fetcher.fetch(f"{site.url}/a"))
                while not site.asked["/a"]:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.3)
                others = [fetcher.fetch(f"{site.url}/{n}") for n in range(4)]
                return [result.reason for result in await asyncio.gather(first, *others)]

        assert asyncio.run(run()) == [""] * 5
        told, *later = site.times()
    assert len(later) == 5 and min(later) - told >= 2


def test_a_host_that_wants_to_be_left_alone_for_longer_than_a_url_waits_is_not_asked() -> None:
    with Site(answers={"/a": [(429, {"Retry-After": "3600"})]}) as site:
        config = replace(CONFIG, turn_seconds=0.5)
        memory, found = Memory(), []

        async def run() -> None:
            async with Fetcher(config, memory=memory) as fetcher:
                found.extend([(await fetcher.fetch(f"{site.url}/{path}")).reason for path in ("a", "b")])

        asyncio.run(run())
        assert found == ["http_429", "host_busy"]
        assert len(site.times()) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), (" 7 ", 7), ("-1", None), ("soon", None), (None, None), ("9" * 30, 86_400)],
)
def test_a_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds
    in_a_minute = retry_after(formatdate(time.time() + 61, usegmt=True))
    assert in_a_minute is not None and 0 < in_a_minute <= 61
    assert retry_after(formatdate(0, usegmt=True)) == 0


def test_a_crawl_delay_is_kept_and_no_other_robots() -> None:
    robots = f"User-agent: other\nCrawl-delay: 50\n\nUser-agent: {AGENT}\nCrawl-delay: 0.4\n"
    with Site(robots) as site:
        assert reasons(site, [f"/{n}" for n in range(4)]) == [""] * 4
        times = site.times()
    assert times[-1] - times[0] >= 3 * 0.4 - 0.05
    assert len(site.asked["/robots.txt"]) == 1


def test_who_cannot_have_a_turn_in_time_does_not_wait_for_it() -> None:
    with Site(f"User-agent: {AGENT}\nCrawl-delay: 3600\n") as site:
        found = Counter(reasons(site, [f"/{n}" for n in range(20)]))
        assert found == {"": 1, "host_busy": 19} and len(site.times()) == 1


def test_a_place_in_the_queue_that_is_given_up_helps_those_behind() -> None:
    """The next turn comes in 10 seconds, others every 5: who waits for 12, 12, 17 and 17 seconds has one?"""

    class Later:
        def take(self, asked: list[Asked]) -> list[Given]:
            return [Given([], again=10.0, apart=5.0) for _ in asked]

        def slow(self, host: str, seconds: float) -> None: ...
        def pause(self, host: str, seconds: float) -> None: ...

    async def run() -> list[bool | None]:
        turns = Turns(Later())
        waits = [asyncio.create_task(turns.wait("host", "", seconds)) for seconds in (12, 12, 17, 17)]
        for _ in range(10):
            await asyncio.sleep(0)
        found = [wait.result() if wait.done() else None for wait in waits]
        for wait in waits:
            wait.cancel()
        await turns.close()
        return found

    assert asyncio.run(run()) == [None, False, None, False]


def test_a_circuit_outlives_a_shard() -> None:
    memory, config = Memory(), replace(CONFIG, host_failures=3, retries=0, concurrency=1)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{held.getsockname()[1]}/"

        async def run() -> list[tuple[str, int]]:
            found = []
            for _ in range(2):
                async with Fetcher(config, memory=memory) as fetcher:
                    (reason,) = {(await fetcher.fetch(f"{url}{n}")).reason for n in range(4)}
                    found.append((reason, fetcher.spared))
            return found

        assert asyncio.run(run()) == [("connect_failed", 1), ("connect_failed", 4)]


def test_a_host_that_refuses_everybody_does_not_hold_a_shard() -> None:
    """Forty URLs of a host that always answers 429: a few are asked, the others have its reason."""
    with Site(answers={f"/{n}": [(429, {})] * 9 for n in range(40)}) as site:
        fetch = replace(CONFIG, host_failures=3, host_pause_seconds=1.0, respect_robots=False, host_rate=20)

        async def run() -> list[str]:
            async with Fetcher(fetch) as fetcher:
                found = await asyncio.gather(*(fetcher.fetch(f"{site.url}/{n}") for n in range(40)))
            return [result.reason for result in found]

        assert asyncio.run(run()) == ["http_429"] * 40
        assert 3 <= sum(map(len, site.asked.values())) < 20


def test_what_may_heal_is_asked_for_once_more_at_the_end() -> None:
    ill: list[tuple[int, dict[str, str]]] = [(503, {})]
    with Site(answers={"/heals": ill * 2, "/stays": ill * 9, "/gone": [(404, {})] * 9}) as site:
        fetch = replace(CONFIG, second_pass_seconds=0.3)
        job = GuardedDownload(
            urls=Artifact("urls", "", "."), fetch=fetch, resize=ResizeConfig(image_size=32, min_size=0)
        )
        job.__dict__["opted_out"] = ()
        job.setup()
        urls = [f"{site.url}/{name}" for name in ("fine", "heals", "stays", "gone")]
        outcomes, stats = job.obtain(urls, RowErrors("s", 4))
        asked = {path: len(times) for path, times in site.asked.items()}
    assert [outcome["reason"] for outcome in outcomes] == [None, None, "http_503", "http_404"]
    assert stats == {"second_pass": 2, "second_pass_images": 1}
    assert asked == {"/robots.txt": 1, "/fine": 1, "/heals": 3, "/stays": 3, "/gone": 1}
    assert site.asked["/heals"][2] - site.asked["/heals"][1] >= 0.3


def test_turns_of_many_askers_keep_their_distance() -> None:
    """Eight workers, each with URLs of two hosts at one address, at random moments of a clock of our own."""
    import random

    now = [0.0]
    budget = Budget(FetchConfig(host_rate=10, address_rate=15), lambda: now[0])
    draw, taken = random.Random(0), defaultdict(list)
    left = {(worker, host): 30 for worker in range(8) for host in "ab"}
    while left:
        worker, host = draw.choice(sorted(left))
        (given,) = budget.take([(host, "1.1.1.1", min(5, left[worker, host]))])
        taken[host] += [now[0] + turn for turn in given.turns]
        left[worker, host] -= len(given.turns)
        if not left[worker, host]:
            del left[worker, host]
        now[0] += draw.random() / 20
    for times, rate in ((taken["a"], 10), (taken["b"], 10), (taken["a"] + taken["b"], 15)):
        assert all(b - a >= 1 / rate - 1e-9 for a, b in pairwise(sorted(times)))
    assert len(taken["a"]) == len(taken["b"]) == 240


def test_ipv4_comes_first_and_a_name_server_that_could_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: Counter[str] = Counter()

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked[host] += 1
        if host == "missing.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if host == "busy.example" and asked[host] == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [
            (0, 0, 0, "", (address, port)) for address in ("2606:2800::1", "93.184.215.14", "2606:2800::2")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    names = Names(system_lookup)

    async def run() -> list[Any]:
        hosts = ["busy.example", "fine.example", "missing.example"] * 3
        return await asyncio.gather(*(names.resolve(host, 80) for host in hosts), return_exceptions=True)

    found = asyncio.run(run())
    assert found[0] == found[1] == ["93.184.215.14", "2606:2800::1", "2606:2800::2"]
    assert all(isinstance(error, OSError) for error in found[2::3])
    assert asyncio.run(run())[0] == found[0]  # in another event loop, from memory
    assert asked == {"busy.example": 2, "fine.example": 1, "missing.example": 1}


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    cluster.configure(ClusterConfig(num_cpus=2))
    cluster.ensure()
    yield
    cluster.shutdown()


@pytest.mark.slow
def test_eight_workers_ask_a_host_no_more_often_than_one(local_ray: None, tmp_path: Path) -> None:
    import ray

    workers, rows, rate = 8, 6, 8.0
    urls = Workspace(str(tmp_path / "urls"))
    urls.publish({})
    fetch, resize = replace(CONFIG, host_rate=rate), ResizeConfig(image_size=32, min_size=0)
    obtain = ray.remote(num_cpus=0.25)(GuardedDownload.obtain)
    with (
        Site() as site,
        GuardedDownload(urls=Artifact("urls", "", urls.url), fetch=fetch, resize=resize).together() as job,
    ):
        listed = [[f"{site.url}/{worker}/{row}" for row in range(rows)] for worker in range(workers)]
        done = ray.get([obtain.remote(job, mine, RowErrors("s", rows)) for mine in listed])
        times = sorted(at for asked in site.asked.values() for at in asked)
        asked = len(site.asked["/robots.txt"])
    assert [outcome["reason"] for outcomes, _ in done for outcome in outcomes] == [None] * workers * rows
    assert asked == workers  # each reads robots.txt for itself, in a turn like any other
    assert times[-1] - times[0] >= (len(times) - 1) / rate - 0.1
    print(f"{len(times)} requests in {times[-1] - times[0]:.2f} s, {rate:.0f} a second allowed")


def test_workers_of_a_machine_share_what_names_mean(local_ray: None) -> None:
    import ray

    from pipelines.crawl.shared import NodeNames

    first, second = NodeNames(), NodeNames()

    async def ask(names: NodeNames) -> tuple[list[str], str]:
        found = await names("localhost", 80)
        with pytest.raises(OSError):
            await names("nowhere.invalid", 80)
        return found, names._actor._actor_id.hex()

    found, actor = asyncio.run(ask(first))
    assert found[0] == "127.0.0.1" and asyncio.run(ask(second)) == (found, actor)
    ray.kill(first._actor)  # as when the worker that started it ends
    assert asyncio.run(ask(second))[1] != actor
