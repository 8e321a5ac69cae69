"""When a host and an address may be asked: one budget, however many workers ask.

Turns are given out for the next moment alone, so that a pause that a host asks for soon holds for everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pipelines.crawl.expiring import Expiring
from pipelines.crawl.limits import FetchConfig
from pipelines.urls.canonical import canonical_host

HORIZON_SECONDS = 1.0
"""How far ahead a turn may lie."""
DAY = 24 * 3600.0
_ROOM = 1_000_000
_SWEEP = 100_000

Asked = tuple[str, str, int]
"""A host as `canonical_host` has it, the address that serves it ("" if that has no budget), and URLs."""


class Given(NamedTuple):
    """An answer.

    Attributes:
        turns: in how many seconds each turn comes.
        again: in how many to ask again, if they are fewer than asked for; else 0.
        apart: seconds between two turns from then on, at the least.
    """

    turns: list[float]
    again: float = 0.0
    apart: float = 0.0


class Budget:
    """Turns of hosts, at whatever port, by http or https, and of addresses, whatever hosts they serve.

    Args:
        config: the rates.
        clock: seconds that only grow.
    """

    def __init__(self, config: FetchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = {canonical_host(host): rate for host, rate in config.host_rates.items()}
        self._host_rate, self._address_rate = config.host_rate, config.address_rate
        self._clock = clock
        self._next: dict[str, float] = {}
        self._delays: Expiring[float] = Expiring(DAY, _ROOM, clock)

    def take(self, asked: Sequence[Asked]) -> list[Given]:
        """Take the turns that come within the horizon; one answer for each question."""
        if len(self._next) > _SWEEP:
            now = self._clock()
            self._next = {name: at for name, at in self._next.items() if at > now}
        return [self._take(*question) for question in asked]

    def slow(self, host: str, seconds: float) -> None:
        """Keep to a host's Crawl-delay from now on, for a day."""
        self._delays.put(host, seconds)

    def pause(self, host: str, seconds: float) -> None:
        """Give no turn of a host for so long."""
        self._next[host] = max(self._next.get(host, 0.0), self._clock() + seconds)

    def _take(self, host: str, address: str, count: int) -> Given:
        now = self._clock()
        apart = {host: self._apart(host)}
        if address and self._address_rate and host not in self._rates:
            apart[f"@{address}"] = 1 / self._address_rate
        turns: list[float] = []
        while len(turns) < count:
            start = max(now, *(self._next.get(name, 0.0) for name in apart))
            if start - now > HORIZON_SECONDS:
                return Given(turns, start - now - HORIZON_SECONDS / 2, max(apart.values()))
            for name, seconds in apart.items():
                if seconds:
                    self._next[name] = start + seconds
            turns.append(start - now)
        return Given(turns)

    def _apart(self, host: str) -> float:
        """Seconds between two turns of a host."""
        rate = self._rates.get(host, self._host_rate)
        return max(1 / rate if rate else 0.0, self._delays.get(host) or 0.0)
