"""How the robot behaves on other people's sites: its name, its limits and its manners."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.crawl.guard import WEB_PORTS
from pipelines.dag.bounds import check_bounds
from pipelines.dag.fingerprint import insignificant

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
        allow_hosts: hosts that may have private addresses and be asked at any port.
        allow_ports: those at which all other hosts may be asked.
        concurrency: URLs under way at a time, per worker.
        per_host: connections to one host at a time, per worker.
        host_rate: requests per second to one host, per worker; 0 is no limit.
        host_failures: URLs in a row that find a host unreachable before it is left alone.
        host_pause_seconds: how long it is left alone until one URL may try again.
    """

    attempt_seconds: float = 8.0
    total_seconds: float = 30.0
    max_bytes: int = 20 * 1024 * 1024
    max_header_bytes: int = 8190
    max_redirects: int = 5
    retries: int = 2
    backoff_seconds: float = 0.5
    contact: str = ""
    respect_robots: bool = True
    respect_tags: bool = True
    allow_hosts: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = WEB_PORTS
    concurrency: int = insignificant(64)
    per_host: int = insignificant(8)
    host_rate: float = insignificant(10.0)
    host_failures: int = 10
    host_pause_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            "download.fetch",
            attempt_seconds=(0.01, 3600),
            total_seconds=(0.01, 86_400),
            max_bytes=(1, 1 << 30),
            max_header_bytes=(256, 1 << 20),
            max_redirects=(0, 30),
            retries=(0, 20),
            backoff_seconds=(0, 600),
            concurrency=(1, 4096),
            per_host=(1, 4096),
            host_rate=(0, 100_000),
            host_failures=(1, 1_000_000_000),
            host_pause_seconds=(0, 86_400),
        )
        if odd := [port for port in self.allow_ports if not 1 <= port <= 65_535]:
            raise ValueError(f"download.fetch.allow_ports must be between 1 and 65,535, not {odd[0]}")

    @property
    def user_agent(self) -> str:
        """What the requests say about themselves."""
        contact = f"; {self.contact}" if self.contact else ""
        return f"{AGENT}/0.1 (collects images for research, keeps to robots.txt{contact})"
