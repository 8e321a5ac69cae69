"""A host that seems down is left alone for a while; who finds it so tells the shards after it."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.reasons import Failure

UNREACHABLE = frozenset(
    {"dns_failed", "connect_failed", "connection_reset", "tls_failed", "timeout", "http_429"}
)
"""Reasons that speak of the host and not of the URL."""


class Circuit:
    """The circuit breaker of a scheme, host and port.

    Args:
        config: limits.
        clock: seconds that only grow.
    """

    def __init__(self, config: FetchConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._failures, self._reason, self._again, self._opened = 0, "", 0.0, 0.0

    def check(self, passed: float | None = None) -> float:
        """Let a request pass, unless the host failed many times in a row; now and then one may try.

        Args:
            passed: when it was let pass before; it passes again unless the circuit opened since.

        Returns:
            When it passed.

        Raises:
            Failure: with the reason that those before it had, so that a row reads the same, asked or not.
        """
        now = self._clock()
        if self._failures < self._config.host_failures or (passed is not None and passed >= self._opened):
            return now
        if now < self._again or passed is not None:  # who waited meanwhile is not the one that may try
            raise Failure(self._reason, "the host failed many times in a row")
        self._again = now + self._config.host_pause_seconds
        return now

    def note(self, reason: str) -> None:
        """Learn from a URL's last try; any other answer shows that the host may be asked."""
        if reason not in UNREACHABLE:
            self._failures = 0
            return
        self._failures += 1
        self._reason = reason
        if self._failures == self._config.host_failures:
            self._opened = self._clock()
            self._again = self._opened + self._config.host_pause_seconds
