"""What a worker knows about hosts, from shard to shard."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.crawl.budget import DAY
from pipelines.crawl.expiring import Expiring
from pipelines.crawl.hosts import Circuit
from pipelines.crawl.names import Names
from pipelines.crawl.robots import Robots

ROBOTS_SECONDS, CIRCUIT_SECONDS = DAY, 3600.0
"""How long a robots.txt (at most a day, says RFC 9309) is believed, and a host's failures are remembered."""
ROBOTS_ROOM, CIRCUIT_ROOM = 64 << 20, 100_000
"""How much of both is kept: bytes of rules, and hosts."""


@dataclass
class Memory:
    """What outlives a fetcher: robots.txt and circuits by origin, and the addresses of names."""

    robots: Expiring[Robots] = field(default_factory=lambda: Expiring(ROBOTS_SECONDS, ROBOTS_ROOM))
    circuits: Expiring[Circuit] = field(default_factory=lambda: Expiring(CIRCUIT_SECONDS, CIRCUIT_ROOM))
    names: Names = field(default_factory=Names)
