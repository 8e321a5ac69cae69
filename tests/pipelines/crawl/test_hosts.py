"""A host's turns, and the circuit that opens when it is down."""

from __future__ import annotations

import pytest

from pipelines.crawl.expiring import Expiring
from pipelines.crawl.hosts import Host, Turns
from pipelines.crawl.manners import FetchConfig
from pipelines.crawl.reasons import Failure


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def verdict(host: Host) -> str:
    try:
        host.check()
    except Failure as failure:
        return failure.reason
    return ""


def test_a_host_that_fails_in_a_row_is_left_alone_and_tried_again_later() -> None:
    clock = Clock()
    host = Host(FetchConfig(host_failures=3, host_pause_seconds=60), clock=clock)
    for reason in ("timeout", "dns_failed", "connect_failed"):
        assert verdict(host) == ""
        host.note(reason)
    assert [verdict(host), verdict(host)] == ["connect_failed", "connect_failed"]
    assert host.spared == 2
    clock.now += 61
    assert [verdict(host), verdict(host)] == ["", "connect_failed"]  # one may try
    host.note("timeout")
    clock.now += 59
    assert verdict(host) == "timeout"
    clock.now += 2
    assert verdict(host) == ""
    host.note("")
    assert [verdict(host) for _ in range(3)] == ["", "", ""]


def test_an_answer_of_any_kind_shows_that_the_host_lives() -> None:
    host = Host(FetchConfig(host_failures=2), clock=Clock())
    for reason in ("timeout", "http_404", "timeout", "http_503", "timeout", "truncated", "timeout"):
        host.note(reason)
        assert verdict(host) == ""


@pytest.mark.parametrize(("rate", "waits"), [(4, [0, 0.25, 0.5, 0]), (0, [0, 0, 0, 0])])
def test_requests_to_a_host_keep_their_distance(rate: float, waits: list[float]) -> None:
    clock = Clock()
    turns = Turns(FetchConfig(host_rate=rate), clock=clock)
    found = [turns.next() for _ in range(3)]
    clock.now += 10
    assert [*found, turns.next()] == waits


def test_a_host_that_invites_bulk_has_its_own_rate() -> None:
    config = FetchConfig(host_rate=2, host_rates={"Bucket.Example.": 100})
    waits = {}
    for name in ("bucket.example", "other.example"):
        turns = Turns(config, name, Clock())
        waits[name] = [turns.next() for _ in range(3)]
    assert waits == {"bucket.example": pytest.approx([0, 0.01, 0.02]), "other.example": [0, 0.5, 1.0]}


def test_what_is_remembered_grows_old_and_makes_room() -> None:
    clock = Clock()
    memory: Expiring[int] = Expiring(60, room=2, clock=clock)
    memory.put("a", 1)
    clock.now += 30
    memory.put("b", 2)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (1, 2, None)
    clock.now += 31
    assert (memory.get("a"), memory.get("b")) == (None, 2)
    memory.put("b", 3)
    memory.put("c", 4)
    memory.put("d", 5)
    assert [memory.get(name) for name in "abcd"] == [None, None, 4, 5]
