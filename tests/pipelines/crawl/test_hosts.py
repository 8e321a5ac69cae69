"""Turns of hosts and addresses, and the circuit that opens when a host is down."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pipelines.crawl.budget import HORIZON_SECONDS, Budget
from pipelines.crawl.expiring import Expiring
from pipelines.crawl.hosts import Circuit
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import Failure


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def verdict(host: Circuit) -> str:
    try:
        host.check()
    except Failure as failure:
        return failure.reason
    return ""


def test_a_host_that_fails_in_a_row_is_left_alone_and_tried_again_later() -> None:
    clock = Clock()
    host = Circuit(FetchConfig(host_failures=3, host_pause_seconds=60), clock=clock)
    for reason in ("timeout", "dns_failed", "connect_failed"):
        assert verdict(host) == ""
        host.note(reason)
    assert [verdict(host), verdict(host)] == ["connect_failed", "connect_failed"]
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
    host = Circuit(FetchConfig(host_failures=2), clock=Clock())
    for reason in ("timeout", "http_404", "timeout", "http_503", "timeout", "truncated", "timeout"):
        host.note(reason)
        assert verdict(host) == ""


def test_who_was_let_pass_is_stopped_only_by_a_circuit_that_opened_since() -> None:
    clock = Clock()
    host = Circuit(FetchConfig(host_failures=1, host_pause_seconds=60), clock=clock)
    passed = host.check()
    clock.now += 1
    host.note("timeout")
    with pytest.raises(Failure):
        host.check(passed)
    clock.now += 61
    trial = host.check()  # the one that may try
    assert host.check(trial) == clock.now


@pytest.mark.parametrize(("rate", "waits"), [(4, [0, 0.25, 0.5, 0.75, 1.0]), (0, [0] * 9)])
def test_turns_of_a_host_keep_their_distance_and_lie_no_further_ahead_than_the_horizon(
    rate: float, waits: list[float]
) -> None:
    clock = Clock()
    budget = Budget(FetchConfig(host_rate=rate), clock)
    ((turns, again, apart),) = budget.take([("a", "", 9)])
    assert turns == waits
    assert (again > 0) == (len(turns) < 9) and apart == (0.25 if again else 0)
    clock.now += again
    ((later, _, _),) = budget.take([("a", "", 9)])
    taken = turns + [again + turn for turn in later]
    assert not rate or all(b - a >= 1 / rate - 1e-9 for a, b in pairwise(taken))


def test_a_host_that_invites_bulk_has_its_own_rate() -> None:
    config = FetchConfig(host_rate=2, host_rates={"Bucket.Example.": 100}, address_rate=1)
    budget = Budget(config, Clock())
    first, other = budget.take([("bucket.example", "1.1.1.1", 3), ("other.example", "", 3)])
    assert first[0] == pytest.approx([0, 0.01, 0.02]) and other[0] == [0, 0.5, 1.0]


def test_hosts_at_one_address_share_its_budget() -> None:
    budget = Budget(FetchConfig(host_rate=10, address_rate=4), Clock())
    given = budget.take([("a", "1.1.1.1", 1), ("b", "1.1.1.1", 1), ("c", "2.2.2.2", 1), ("a", "1.1.1.1", 1)])
    assert [turns for turns, _, _ in given] == [[0], [0.25], [0], [0.5]]


def test_a_crawl_delay_slows_a_host_and_a_pause_stops_it() -> None:
    clock = Clock()
    budget = Budget(FetchConfig(host_rate=10), clock)
    budget.slow("a", 0.75)
    slowed, other = budget.take([("a", "", 3), ("b", "", 3)])
    assert slowed[0] == [0, 0.75] and other[0] == pytest.approx([0, 0.1, 0.2])
    budget.pause("b", 30)
    ((turns, again, _),) = budget.take([("b", "", 1)])
    assert turns == [] and again >= 30 - HORIZON_SECONDS
    clock.now += 30
    assert budget.take([("b", "", 1)])[0][0] == [0]


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
