"""How the robot behaves on other people's sites: its name, its limits and its manners."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.dag.fingerprint import insignificant
from reptok.bounds import Count, Number, Positive, Whole

AGENT = "RepTokBot"
"""The name under which robots.txt and X-Robots-Tag may address this robot."""


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """Limits and manners.

    Attributes:
        attempt_seconds: longest time of one try, from the request to the last byte.
        total_seconds: longest time of all tries of a URL together; waiting for a free slot does not count.
        max_bytes: longest body, decompressed.
        max_header_bytes: longest header line.
        max_redirects: redirects followed per try.
        retries: further tries when no answer came in time, a connection was reset or the answer is 5xx.
        backoff_seconds: pause before the first of them, doubled for each further one.
        contact: how a site's owner can reach you; it ends the User-Agent.
        respect_robots: keep to robots.txt.
        respect_tags: keep to X-Robots-Tag noai, noimageai and noindex.
        allow_hosts: hosts that may have private addresses.
        concurrency: URLs under way at a time, per worker.
        per_host: connections to one host at a time, per worker.
        host_rate: requests per second to one host, per worker; 0 is no limit.
        host_failures: URLs in a row that find a host unreachable before it is left alone.
        host_pause_seconds: how long it is left alone until one URL may try again.
    """

    attempt_seconds: Positive = 8.0
    total_seconds: Positive = 30.0
    max_bytes: Count = 20 * 1024 * 1024
    max_header_bytes: Count = 8190
    max_redirects: Whole = 5
    retries: Whole = 2
    backoff_seconds: Number = 0.5
    contact: str = ""
    respect_robots: bool = True
    respect_tags: bool = True
    allow_hosts: tuple[str, ...] = ()
    concurrency: Count = insignificant(64)
    per_host: Count = insignificant(8)
    host_rate: Number = insignificant(10.0)
    host_failures: Count = 10
    host_pause_seconds: Number = 60.0

    @property
    def user_agent(self) -> str:
        """What the requests say about themselves."""
        contact = f"; {self.contact}" if self.contact else ""
        return f"{AGENT}/0.1 (collects images for research, keeps to robots.txt{contact})"
