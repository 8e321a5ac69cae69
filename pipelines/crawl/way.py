"""One URL's way: the time that is left for it, and how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipelines.crawl.reasons import Failure


@dataclass
class Progress:
    """Whether a request came as far as its body."""

    begun: bool = False


@dataclass
class Way:
    """The state of one URL's way.

    Attributes:
        seconds: left to spend on the network.
        url: where it is, after redirects.
    """

    seconds: float
    url: str = ""

    @asynccontextmanager
    async def timed(self, most: float) -> AsyncIterator[Progress]:
        """Bound the time of a request; one that ends within the body is not worth another try.

        Args:
            most: seconds, also if more are left.
        """
        clock = asyncio.get_running_loop().time
        begin = clock()
        progress = Progress()
        try:
            async with asyncio.timeout(max(0.0, min(most, self.seconds))):
                yield progress
        except TimeoutError:
            raise Failure("timeout", transient=not progress.begun) from None
        finally:
            self.seconds -= clock() - begin
