"""Names become addresses: each is looked up once at a time, few at a time, and remembered, failures too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

from pipelines.crawl.expiring import Expiring

RESOLVER_THREADS = 32
LOOKUP_SECONDS = 10.0
PAUSES = (0.5, 2.0)
"""Before a name server that could not answer is asked again."""

ADDRESS_SECONDS, MISSING_SECONDS = 300.0, 60.0
"""How long the addresses of a name are believed, and that it has none."""
ADDRESS_ROOM = 100_000

Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to numeric addresses; raises OSError if there are none."""


class Names:
    """Addresses by name, as they were looked up; outlives event loops, but is of one process.

    Args:
        lookup: how a name is looked up; `system_lookup` by default.
    """

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or system_lookup
        self.known: Expiring[list[str]] = Expiring(ADDRESS_SECONDS, ADDRESS_ROOM)
        self._missing: Expiring[str] = Expiring(MISSING_SECONDS, ADDRESS_ROOM)
        self._asking: dict[str, asyncio.Task[list[str]]] = {}
        self._places: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def resolve(self, name: str, port: int) -> list[str]:
        """The addresses of a name.

        Raises:
            OSError: it has none, or no name server says so.
        """
        if (known := self.known.get(name)) is not None:
            return known
        if (why := self._missing.get(name)) is not None:
            raise OSError(why)
        task = self._asking.get(name)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            task = self._asking[name] = asyncio.create_task(self._find(name, port))
        try:
            return await asyncio.shield(task)
        finally:
            if task.done() and self._asking.get(name) is task:
                del self._asking[name]

    async def _find(self, name: str, port: int) -> list[str]:
        try:
            async with self._place():
                addresses = await self._lookup(name, port)
            if not addresses:
                raise OSError(f"{name} has no address")
        except OSError as error:
            self._missing.put(name, str(error))
            raise
        self.known.put(name, addresses, len(addresses))
        return addresses

    def _place(self) -> asyncio.Semaphore:
        """One of as many places as there are threads, so that no lookup's time runs before it begins."""
        loop = asyncio.get_running_loop()
        if self._places is None or self._places[0] is not loop:
            self._places = loop, asyncio.Semaphore(RESOLVER_THREADS)
        return self._places[1]


async def system_lookup(host: str, port: int) -> list[str]:
    """Ask the system's resolver; IPv4 comes first, since IPv6 is where a crawler's routes are missing.

    Raises:
        OSError: the name does not exist, or the name servers gave no answer three times.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    pauses = list(PAUSES)
    while True:
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().run_in_executor(_resolvers(), ask)
            return sorted(dict.fromkeys(str(entry[4][0]) for entry in found), key=lambda a: ":" in a)
        except TimeoutError as error:
            if not pauses:
                raise OSError(f"no name server told of {host} within {LOOKUP_SECONDS:.0f} s") from error
        except socket.gaierror as error:
            if not pauses or error.errno != socket.EAI_AGAIN:
                raise
        await asyncio.sleep(pauses.pop(0))


@lru_cache(maxsize=1)
def _resolvers() -> ThreadPoolExecutor:
    """Threads of their own: asyncio's few would let slow name servers hold up every other name."""
    return ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="dns")
