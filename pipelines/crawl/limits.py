"""How the robot behaves on other people's sites: its name and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from pipelines.dag.fingerprint import insignificant
from reptok.bounds import Count, Number

AGENT = "RepTokBot"
"""The name under which robots.txt and X-Robots-Tag may address this robot."""

WEB_PORTS = (80, 443)

Few = Annotated[int, Interval(ge=0, le=20)]
Port = Annotated[int, Interval(ge=1, le=65_535)]
Many = Annotated[int, Interval(ge=1, le=4096)]
Limit = Annotated[float, Interval(gt=0, le=86_400)]
Seconds = Annotated[float, Interval(ge=0, le=86_400)]


@dataclass(frozen=True, kw_only=True)
class FetchConfig:
    """How, how much and how often it fetches.

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
        host_rate: requests per second to one host, of all workers together; 0 is no limit.
        host_rates: the same for hosts by name, such as one that invites bulk downloads.
        address_rate: requests per second to one address, whatever hosts it serves, of all workers together;
            hosts of `host_rates`, and those that are served here, have none.
        turn_seconds: longest time that a URL waits for its host's turn; what cannot have one in it does not
            wait.
        second_pass_seconds: when a URL whose failure may heal is asked for once more, within the same shard;
            0 for never.
        host_failures: URLs in a row that find a host unreachable, or are told 429, before it is left alone.
        host_pause_seconds: how long it is left alone until one URL may try again.
    """

    attempt_seconds: Limit = 8.0
    total_seconds: Limit = 30.0
    max_bytes: Annotated[int, Interval(ge=1, le=1 << 30)] = 20 * 1024 * 1024
    max_header_bytes: Annotated[int, Interval(ge=256, le=1 << 20)] = 8190
    max_redirects: Few = 5
    retries: Few = 2
    backoff_seconds: Seconds = 0.5
    contact: str = ""
    respect_robots: bool = True
    respect_tags: bool = True
    allow_hosts: tuple[str, ...] = ()
    allow_ports: tuple[Port, ...] = WEB_PORTS
    concurrency: Many = insignificant(64)
    per_host: Many = insignificant(8)
    host_rate: Number = insignificant(10.0)
    host_rates: dict[str, Number] = insignificant(factory=dict)
    address_rate: Number = insignificant(20.0)
    turn_seconds: Limit = insignificant(600.0)
    second_pass_seconds: Seconds = insignificant(60.0)
    host_failures: Count = 10
    host_pause_seconds: Seconds = 60.0

    @property
    def user_agent(self) -> str:
        """What the requests say about themselves."""
        contact = f"; {self.contact}" if self.contact else ""
        return f"{AGENT}/0.1 (collects images for research, keeps to robots.txt{contact})"
