"""How one host is treated: requests at a time, requests per second, and left alone while it seems down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pipelines.crawl.manners import FetchConfig
from pipelines.crawl.reasons import Failure
from pipelines.urls.canonical import canonical_host

UNREACHABLE = frozenset({"dns_failed", "connect_failed", "connection_reset", "tls_failed", "timeout"})
"""Reasons that speak of the host and not of the URL."""


class Turns:
    """When a host may be asked, at whatever port, by http or https.

    Args:
        config: its rates.
        name: the host's, as `canonical_host` has it.
        clock: seconds that only grow.
    """

    def __init__(
        self, config: FetchConfig, name: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        rates = {canonical_host(host): rate for host, rate in config.host_rates.items()}
        self._rate, self._clock = rates.get(name, config.host_rate), clock
        self._next = 0.0

    def next(self) -> float:
        """Take the next turn that the rate limit allows, and say in how many seconds it comes."""
        if not self._rate:
            return 0.0
        now = self._clock()
        start = max(now, self._next)
        self._next = start + 1 / self._rate
        return start - now


class Host:
    """Connections to a scheme, host and port, and their circuit breaker; belongs to one event loop.

    Args:
        config: limits.
        clock: seconds that only grow.

    Attributes:
        slots: holds a connection's place.
        spared: URLs that were not asked for because the host is down.
    """

    def __init__(self, config: FetchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self.slots = asyncio.Semaphore(config.per_host)
        self.spared = 0
        self._failures, self._reason, self._again = 0, "", 0.0

    def check(self) -> None:
        """Let a request pass, unless the host failed many times in a row; now and then one may try.

        Raises:
            Failure: with the reason that those before it had, so that a row reads the same, asked or not.
        """
        if self._failures < self._config.host_failures:
            return
        now = self._clock()
        if now < self._again:
            self.spared += 1
            raise Failure(self._reason, "the host failed many times in a row")
        self._again = now + self._config.host_pause_seconds

    def note(self, reason: str) -> None:
        """Learn from a URL's last try; an answer of any kind shows that the host lives."""
        if reason not in UNREACHABLE:
            self._failures = 0
            return
        self._failures += 1
        self._reason = reason
        if self._failures == self._config.host_failures:
            self._again = self._clock() + self._config.host_pause_seconds
